"""The cut: a plan carried out on a network, its optimizer and its averaged weights.

A cut is exact: the network computes what it computed with the removed channels' scales at zero and the removed tokens'
presences at zero, in training and in evaluation. A channel of scale zero is not silent, it puts out act(shift): what
the projection makes of that is a constant, which the shared batch norm subtracts in training; in evaluation its running
mean must, so the constant is taken out of the running mean with the channel. Behind a squeeze-excitation it would be no
constant, for each image has its own gate: there a removed channel's shift is at zero too, and it is silent. A token of
presence zero is silent, and so is a transformer without a present token. The moments and averages of what stays are not
changed.
"""

from collections.abc import Mapping, MutableMapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hrnas.models.network import Backbone
from hrnas.nn.search_block import SearchBlock
from hrnas.searching.plan import BlockCut, Plan

_OF_CHANNELS = ("expand.", "expand_norm.", "depthwise_norm.", "gate.excite.")
_FROM_CHANNELS = ("project.", "gate.squeeze.weight")
_OF_TOKENS = ("transformer.projector.", "transformer.token_norm.", "transformer.queries")


@torch.no_grad()
def apply_plan(
    plan: Plan,
    model: Backbone,
    optimizer: Optimizer | None = None,
    averages: MutableMapping[str, Tensor] | None = None,
) -> None:
    """Cut `model` in place, and with it the optimizer's state and the averaged tensors.

    model: of the architecture the plan was made for; its modules keep their training or evaluation mode.
    optimizer: its parameters are replaced by those that stay, with their state; None if there is none.
    averages: averaged parameters and buffers by their names in the model; None if there are none.
    """
    for name, cut in plan.blocks.items():
        block = model.get_submodule(name)
        assert isinstance(block, SearchBlock), f"{name} is no search block"
        old_parameters = dict(block.named_parameters())
        modes = {path: module.training for path, module in block.named_modules()}
        state = _cut_values(block.state_dict(), cut, block.activation)
        with torch.device("meta"):
            block.resize(cut.after)
        # What was made anew stands on the meta device; all else keeps its tensors.
        remade = {key for key, value in block.state_dict().items() if value.is_meta}
        missing, unexpected = block.load_state_dict(
            {key: state[key] for key in remade if key in state}, strict=False, assign=True
        )
        assert not unexpected, f"{name} has no {unexpected}"
        assert not remade & set(missing), f"{name} lacks {remade & set(missing)}"
        for path, module in block.named_modules():
            module.training = modes.get(path, block.training)
        for path, parameter in block.named_parameters():
            parameter.requires_grad_(old_parameters[path].requires_grad)
        if optimizer is not None:
            _cut_optimizer(optimizer, old_parameters, dict(block.named_parameters()), cut)
        if averages is not None:
            _cut_averages(averages, f"{name}.", cut, block.activation)
    model.architecture = plan.architecture


def _cut_values(state: Mapping[str, Tensor], cut: BlockCut, activation: nn.Module) -> dict[str, Tensor]:
    """Return the values of a cut block (parameters and buffers by name), the removed channels' constants moved."""
    cut_state = _select(state, cut)
    if cut.after.kernels != cut.before.kernels and not cut.before.squeeze:
        gone = torch.ones(cut.before.hidden_channels, dtype=torch.bool)
        gone[cut.kept] = False
        silent = activation(state["depthwise_norm.bias"].clone())  # what a channel of scale zero puts out
        constant = state["project.weight"][:, :, 0, 0] @ (silent * gone.to(silent))
        cut_state["project_norm.running_mean"] = cut_state["project_norm.running_mean"] - constant
    return cut_state


def _select(tensors: Mapping[str, Tensor], cut: BlockCut) -> dict[str, Tensor]:
    """Return what stays of tensors shaped like a block's parameters and buffers, by name."""
    kept, tokens = cut.kept, cut.kept_tokens
    selected = {}
    for key, value in tensors.items():
        if key.startswith(_OF_CHANNELS):
            if cut.after.kernels:
                selected[key] = _taken(value, kept)
        elif key.startswith(_FROM_CHANNELS):
            if cut.after.kernels:
                selected[key] = _taken(value, kept, dim=1)
        elif key == "gate.squeeze.bias":
            if cut.after.kernels:
                selected[key] = value
        elif key.startswith("transformer.") and not cut.after.tokens:
            continue
        elif key.startswith(_OF_TOKENS):
            selected[key] = _taken(value, tokens)
        elif key.startswith("transformer.inverse_projector."):
            selected[key] = _taken(value, tokens, dim=1)
        elif not key.startswith("depthwise."):
            selected[key] = value
    first = 0
    left = dict(cut.after.kernels)
    for size, channels in cut.before.kernels:
        key = f"depthwise.convs.{size}.weight"
        if size in left and key in tensors:
            own = kept[(kept >= first) & (kept < first + channels)] - first
            selected[key] = _taken(tensors[key], own)
        first += channels
    return selected


def _taken(value: Tensor, indices: Tensor, dim: int = 0) -> Tensor:
    """Return the entries of a tensor along a dimension, in its own memory format; a number stays as it is.

    The same strides as in a network built anew: other strides are other kernels, and a resumed run would part from one
    never stopped in the last digits.
    """
    if not value.dim() or len(indices) == value.shape[dim]:
        return value
    taken = value.index_select(dim, indices.to(value.device))
    if value.dim() == 4 and value.stride() == _channels_last_strides(value.shape):
        return (
            torch.empty(taken.shape, dtype=taken.dtype, device=taken.device)
            .to(memory_format=torch.channels_last)
            .copy_(taken)
        )
    return taken


def _channels_last_strides(shape: torch.Size) -> tuple[int, ...]:
    # torch's own test says yes to a 1x1 weight of either format.
    _, channels, height, width = shape
    return (channels * height * width, 1, width * channels, channels)


def _cut_optimizer(
    optimizer: Optimizer, old: Mapping[str, nn.Parameter], new: Mapping[str, nn.Parameter], cut: BlockCut
) -> None:
    """Put the new parameters in the place of the old ones, with what stays of their state."""
    for group in optimizer.param_groups:
        names = {id(parameter): name for name, parameter in old.items()}
        group["params"] = [
            parameter if id(parameter) not in names else new[names[id(parameter)]]
            for parameter in group["params"]
            if id(parameter) not in names or names[id(parameter)] in new
        ]
    states = {name: optimizer.state.pop(parameter, {}) for name, parameter in old.items()}
    entries = {entry for state in states.values() for entry in state}
    cut_states: dict[str, dict[str, object]] = {name: {} for name in new}
    for entry in entries:
        values = {name: state[entry] for name, state in states.items() if entry in state}
        shaped = {name: value for name, value in values.items() if torch.is_tensor(value) and value.dim()}
        selected = _select(shaped, cut)
        for name in values:
            if name in new:
                cut_states[name][entry] = selected[name] if name in shaped else values[name]
    for name, state in cut_states.items():
        if state:
            optimizer.state[new[name]] = state


def _cut_averages(averages: MutableMapping[str, Tensor], prefix: str, cut: BlockCut, activation: nn.Module) -> None:
    values = {key.removeprefix(prefix): averages.pop(key) for key in list(averages) if key.startswith(prefix)}
    for key, value in _cut_values(values, cut, activation).items():
        averages[prefix + key] = value
