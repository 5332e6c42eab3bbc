"""Networks by name, from a file, or from a run: plain modules, with no search machinery inside."""

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hrnas.arch.architecture import AnchorHead, Architecture, DenseHead, Pillars
from hrnas.arch.file import read_architecture
from hrnas.arch.presets import SPACES, search_space
from hrnas.arch.published import CLASSES, PUBLISHED, published_network
from hrnas.arch.space import HEADS
from hrnas.errors import CheckpointError, InputError, did_you_mean
from hrnas.models.network import Backbone, Network, build_model


def list_models() -> list[str]:
    """Return the names `create_model` knows: supernets of search spaces, and published networks."""
    return sorted([*SPACES, *PUBLISHED])


def create_model(
    name_or_architecture: str | Path | Architecture,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    head: str | None = None,
    pretrained: str | Path | None = None,
) -> Network | Backbone:
    """Return a network for one's own training loop.

    name_or_architecture: a name of `list_models()`, an architecture.json, or an Architecture.
    num_classes: outputs of the head; needed for a space's name, 1000 for a published network where left out, refused
    for an architecture that has another number.
    in_chans: channels of the image, 3 where left out; refused for an architecture that has another number.
    features_only: leave the head away; the module returns the list of its branches, described by `.features`.
    head: of a space's supernet: "dense" (a map of classes), as where left out, "classes" (one vector an image), or
    "anchors" (boxes in space, from point clouds in the grid of the paper); refused for an architecture that has another
    kind.
    pretrained: a run or a folder with model.safetensors of the same architecture.
    Raises InputError for an unknown name or options that do not fit, CheckpointError for weights of another network.
    """
    if head is not None and head not in HEADS:
        raise InputError(f"Unknown head '{head}'. {did_you_mean(head, HEADS)}")
    if isinstance(name_or_architecture, str) and name_or_architecture in SPACES:
        if num_classes is None and not features_only:
            raise InputError(f"num_classes is missing; '{name_or_architecture}' needs it unless features_only=True.")
        outputs = None if features_only else num_classes
        takes_clouds = head == AnchorHead.kind
        if takes_clouds and in_chans is not None:
            raise InputError(f"in_chans is {in_chans}; a network with head anchors takes clouds. Leave it out.")
        architecture = search_space(name_or_architecture, stem_stride=2 if takes_clouds else None).supernet(
            outputs,
            3 if in_chans is None else in_chans,
            head or DenseHead.kind,
            pillars=Pillars() if takes_clouds else None,
        )
    elif isinstance(name_or_architecture, str) and name_or_architecture in PUBLISHED:
        outputs = CLASSES if num_classes is None else num_classes
        architecture = published_network(name_or_architecture, outputs, 3 if in_chans is None else in_chans)
    else:
        architecture = _given_architecture(name_or_architecture)
        own = architecture.head
        if num_classes is not None and own is not None and own.outputs != num_classes:
            raise InputError(f"num_classes is {num_classes}; this architecture has {own.outputs}. Leave it out.")
        if num_classes is not None and own is None and not features_only:
            raise InputError(f"num_classes is {num_classes}; this architecture has no head. Leave it out.")
        if in_chans is not None and architecture.in_channels != in_chans:
            raise InputError(f"in_chans is {in_chans}; this architecture has {architecture.in_channels}. Leave it out.")
    if head is not None and architecture.head is not None and architecture.head.kind != head:
        raise InputError(f"head is {head}; this architecture has one of kind {architecture.head.kind}. Leave it out.")
    weights = None if pretrained is None else read_weights(network_folder(pretrained))
    if features_only and architecture.head is not None:
        architecture = replace(architecture, head=None)
    model = build_model(architecture)
    if weights is not None:
        kept = {key: value for key, value in weights.items() if not (features_only and key.startswith("head."))}
        load_weights(model, kept, str(pretrained))
    return model


def load(run_or_folder: str | Path) -> Network:
    """Return the trained network of a run (its best) or of a folder with architecture.json and model.safetensors.

    In evaluation mode. Raises InputError when there is none, CheckpointError when the files do not belong together.
    """
    folder = network_folder(run_or_folder)
    architecture = read_architecture(folder / "architecture.json")
    model = build_model(architecture)
    if not isinstance(model, Network):
        raise InputError(f"{folder} holds a backbone without head. Use create_model(..., features_only=True).")
    load_weights(model, read_weights(folder), str(folder))
    return model.eval()


def load_trained(model: Network, run_or_folder: str | Path) -> bool:
    """Load the weights of a run or folder to start a training from; the last layer only if its outputs agree.

    Returns True when all was loaded, False when the last layer keeps its fresh weights because those given are
    for another number of classes. Raises CheckpointError when anything else differs.
    """
    weights = read_weights(network_folder(run_or_folder))
    fresh = {key: value for key, value in model.state_dict().items() if key.startswith("head.output.")}
    is_whole = all(key in weights and weights[key].shape == value.shape for key, value in fresh.items())
    load_weights(model, weights if is_whole else {**weights, **fresh}, str(run_or_folder))
    return is_whole


def network_folder(run_or_folder: str | Path) -> Path:
    """Return the folder that holds architecture.json and model.safetensors: the one given, or its best/."""
    given = Path(run_or_folder)
    for folder in (given / "best", given):
        if (folder / "architecture.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    raise InputError(
        f"{given} holds no network: neither it nor its best/ has architecture.json and model.safetensors. "
        "Give a run that has reached its budget, or a folder with both files."
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder's model.safetensors. Raises CheckpointError when the file is damaged."""
    file = folder / "model.safetensors"
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}). Copy it anew from where it was made.") from None


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load a state dict strictly. Raises CheckpointError, naming the first tensor that differs."""
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        got, needed = weights.get(name), own.get(name)
        if got is None or needed is None or got.shape != needed.shape:
            shown = "missing" if got is None else f"of shape {tuple(got.shape)}"
            wanted = "has none" if needed is None else f"needs {tuple(needed.shape)}"
            raise CheckpointError(
                f"{source}: tensor '{name}' is {shown}; this architecture {wanted}. "
                "Use the weights that were saved with the architecture."
            )
    model.load_state_dict(weights)


def _given_architecture(given: str | Path | Architecture) -> Architecture:
    if isinstance(given, Architecture):
        return given
    path = Path(given)
    if path.is_dir():
        path = network_folder(path) / "architecture.json"
    if not path.is_file():
        raise InputError(f"Unknown model '{given}'. {did_you_mean(str(given), list_models())}")
    return read_architecture(path)
