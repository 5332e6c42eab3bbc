"""Whole steps of a search, as it is done in the textbook and as it is done here, from the same weights.

    a0   textbook blocks; weight decay a term of the loss for each tensor, the penalty one for each batch norm, AdamW
         and the averages loops over tensors
    a    textbook blocks; decay and AdamW fused, the averages one foreach, the penalty the proximal step
    b    what `hrnas search` runs: channels_last, engine.training.train_step, Shrinker.step

All see the same batch, (B, 3, H, W), again and again. In bfloat16 the forward pass of each runs under autocast.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from hrnas.arch.architecture import Architecture
from hrnas.arch.presets import search_space
from hrnas.commands.search import align_of
from hrnas.costing.analytic import Size
from hrnas.data.description import DataDescription
from hrnas.data.transforms import normalize
from hrnas.engine.averages import Averages
from hrnas.engine.optimization import OptimizerOptions, make_optimizer
from hrnas.engine.training import TrainState, train_step
from hrnas.models.network import Network
from hrnas.searching.control import ShrinkOptions
from hrnas.searching.penalty import gradient_sizes, pull_to_zero, relative_costs
from hrnas.searching.shrinker import Shrinker, cost_range
from hrnas.searching.units import factors, unit_costs, unit_groups
from hrnas.tasks import make_task
from hrnas.tasks.task import Task
from textbook import TextbookNetwork, load_weights, matches

RATE: Final = 1e-5
"""Learning rate: small, so that the numbers stay as they are however many steps are measured."""
PENALTY: Final = 1e-6
DECAY: Final = OptimizerOptions().weight_decay
SEARCH_STEPS: Final = 100_000
"""Of the search that (b) is in; its second step to its 349th are neither a control nor a cut."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured: a network at an input size, on a device. precision: float32 or bfloat16."""

    architecture: Architecture
    input_size: Size
    batch_size: int
    device: str
    precision: str

    @property
    def outputs(self) -> int:
        assert self.architecture.head is not None
        return self.architecture.head.outputs

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W), normalised, in channels_last as in a search, and labels uint8 (B, H, W)."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, 3, *self.input_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, self.outputs, (shape[0], *shape[2:]), dtype=torch.uint8, generator=generator)
        return normalize(images.to(self.device)), labels.to(self.device)

    def task(self) -> Task:
        return make_task(
            DataDescription(
                task="segmentation", names=tuple(map(str, range(self.outputs))), colors=((0, 0, 0),) * self.outputs
            )
        )

    def network(self) -> Network:
        """Return the network with its first weights, the same at each call."""
        torch.manual_seed(0)
        return Network(self.architecture)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


def named_setting(values: dict[str, Any]) -> Setting:
    """Return the setting of the supernet of a space, from plain values."""
    return Setting(
        architecture=search_space(values["space"], values["transformers"]).supernet(values["classes"]),
        input_size=(values["input_size"][0], values["input_size"][1]),
        batch_size=values["batch_size"],
        device=values["device"],
        precision=values["precision"],
    )


class Variant(Protocol):
    """One way of doing a step."""

    model: nn.Module

    def step(self) -> float:
        """Do one step and return its loss."""


class _Textbook:
    """What (a0) and (a) share: the textbook network with the weights of ours, a batch, the penalised scales."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.model = TextbookNetwork(setting.architecture)
        load_weights(self.model, setting.network(), matches(setting.architecture))
        self.model.to(setting.device).train()
        images, self.labels = setting.batch()
        self.images = images.contiguous()
        self.task = setting.task()
        groups = unit_groups(setting.architecture, setting.input_size)
        self.costs = relative_costs(unit_costs(groups)["macs"]).to(setting.device)  # of every unit
        self.scales = []  # in the units' order: one for each kernel path and each transformer
        for name, block in setting.architecture.blocks():
            module = self.model.get_submodule(name)
            self.scales += [norm.weight for norm in module.depthwise_norm]
            if block.tokens:
                self.scales.append(module.transformer.token_norm.weight)

    def loss(self) -> Tensor:
        with self.setting.autocast():
            outputs = self.model(self.images)
        terms = self.task.loss_terms(outputs.float(), self.labels)
        return sum(terms.values(), torch.zeros((), device=self.setting.device)) / self.task.weight(self.labels)


class PlainStep(_Textbook):
    """(a0)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=RATE, weight_decay=0.0, foreach=False, fused=False
        )
        layers = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)
        self.decayed = [
            parameter
            for module in self.model.modules()
            if isinstance(module, layers)
            for name, parameter in module.named_parameters(recurse=False)
            if name.endswith("weight")
        ]
        starts = torch.tensor([0, *(len(scale) for scale in self.scales[:-1])]).cumsum(0).tolist()
        self.scale_costs = self.costs[starts].tolist()  # within a kernel path all units cost the same
        self.averages = {
            name: value.detach().clone() for name, value in self.model.state_dict().items() if value.is_floating_point()
        }

    def step(self) -> float:
        loss = self.loss()
        for weight in self.decayed:
            loss = loss + 0.5 * DECAY * (weight**2).sum()
        for scale, units_cost in zip(self.scales, self.scale_costs, strict=True):
            loss = loss + PENALTY * units_cost * scale.abs().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.averages[name].mul_(0.9999).add_(value, alpha=0.0001)
        return loss.item()


class FusedStep(_Textbook):
    """(a)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.optimizer = make_optimizer(self.model, OptimizerOptions(learning_rate=RATE))
        self.averages = Averages(self.model, setting.batch_size)

    def step(self) -> float:
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        pull = (PENALTY * self.costs / gradient_sizes(self.scales, self.optimizer)).clamp_max(1.0)
        pull_to_zero(self.scales, RATE * pull)
        self.averages.update(self.model)
        return loss.item()


class OurStep:
    """(b)."""

    def __init__(self, setting: Setting) -> None:
        architecture, input_size = setting.architecture, setting.input_size
        self.model = setting.network().to(setting.device, memory_format=torch.channels_last)
        self.images, self.labels = setting.batch()
        self.task = setting.task()
        optimizer = make_optimizer(
            self.model, OptimizerOptions(), scaled=factors(self.model, unit_groups(architecture, input_size)), scale=2.0
        )
        self.state = TrainState(
            model=self.model,
            optimizer=optimizer,
            averages=Averages(self.model, setting.batch_size),
            precision=setting.precision,
        )
        smallest, widest = cost_range(architecture, input_size)
        self.shrinker = Shrinker(
            self.model,
            optimizer,
            input_size=input_size,
            budget=f"macs={(smallest.macs + widest.macs) // 2}",
            steps=SEARCH_STEPS,
            options=ShrinkOptions(start=1.5 / SEARCH_STEPS),
            averages=self.state.averages.tensors,
            align=align_of("auto", torch.device(setting.device)),
        )

    def step(self) -> float:
        loss = train_step(self.state, self.images, self.labels, self.task, RATE)
        has_changed = self.shrinker.step()
        assert not has_changed, "a cut does not belong to what is measured"
        assert self.shrinker.weight > 0, "the penalty must be at work"
        return loss


VARIANTS: Final[dict[str, type[PlainStep] | type[FusedStep] | type[OurStep]]] = {
    "a0": PlainStep,
    "a": FusedStep,
    "b": OurStep,
}
