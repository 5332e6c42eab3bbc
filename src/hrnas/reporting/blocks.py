"""Every search block of a run with its place in the network, what is left of it and what it costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hrnas.arch.architecture import Architecture, Block, ClassHead, DenseHead
from hrnas.costing.analytic import Cost, PlacedBlock, Size, block_cost, cost, place_blocks


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a search block stands.

    role: "fusion" (between branches), "grow" (makes a branch), "parallel" (within a branch), "head" (of a dense head),
    "widen" (of a branch) or "down" (of the sum of a branch to the next), both of a head of classes.
    stage: index of the stage; the head's is one more than the last.
    source, branch: the branch it reads and the one it writes; equal within a branch.
    position: index within its branch of a parallel module; 0 otherwise.
    """

    role: str
    stage: int
    source: int
    branch: int
    position: int = 0

    @property
    def in_head(self) -> bool:
        """True for the blocks of a head of either kind."""
        return self.role in ("head", "widen", "down")


@dataclass(frozen=True, kw_only=True)
class BlockState:
    """A search block as it stands against its widest form.

    widest: hidden channels by kernel size of the supernet's block; tokens_widest: its tokens.
    cost, widest_cost: at the run's input size; widest_cost is None without a supernet.
    transformer_macs: the part of the cost that the transformer has.
    """

    name: str
    place: Place
    block: Block
    size_in: Size
    size_out: Size
    widest: Mapping[int, int]
    tokens_widest: int
    cost: Cost
    widest_cost: Cost | None
    transformer_macs: int

    @property
    def widths(self) -> dict[int, int]:
        """Surviving hidden channels by the supernet's kernel sizes."""
        left = dict(self.block.kernels)
        return {size: left.get(size, 0) for size in self.widest}

    @property
    def is_empty(self) -> bool:
        """True when nothing but the skip is left."""
        return not self.block.kernels and not self.block.tokens

    @property
    def title(self) -> str:
        """One line of words: "stage 2, branch 1 to 0"."""
        if self.place.role == "head":
            return "head"
        if self.place.role == "widen":
            return f"head, widens branch {self.place.branch + 1}"
        if self.place.role == "down":
            return f"head, carries branch {self.place.source + 1} down"
        where = f"stage {self.place.stage + 1}, branch {self.place.branch + 1}"
        if self.place.role == "parallel":
            return f"{where}, block {self.place.position + 1}"
        return f"stage {self.place.stage + 1}, branch {self.place.source + 1} → {self.place.branch + 1}"


def places(architecture: Architecture) -> Iterator[tuple[str, Place]]:
    """Yield the name and place of every search block, in the network's order."""
    for index, stage in enumerate(architecture.stages):
        for position, path in enumerate(stage.paths):
            place = Place(role="fusion", stage=index, source=path.source, branch=path.target)
            yield f"stages.{index}.fusion.paths.{position}", place
        for position in range(len(stage.grow)):
            branch = len(stage.branches) - len(stage.grow) + position
            yield (
                f"stages.{index}.fusion.grow.{position}",
                Place(role="grow", stage=index, source=branch - 1, branch=branch),
            )
        for branch, blocks in enumerate(stage.branches):
            for position in range(len(blocks)):
                yield (
                    f"stages.{index}.branches.{branch}.{position}",
                    Place(role="parallel", stage=index, source=branch, branch=branch, position=position),
                )
    head, column = architecture.head, len(architecture.stages)
    if isinstance(head, DenseHead):
        yield "head.block", Place(role="head", stage=column, source=0, branch=0)
    elif isinstance(head, ClassHead):
        for branch in range(len(head.widen)):
            yield f"head.widen.{branch}", Place(role="widen", stage=column, source=branch, branch=branch)
        for branch in range(len(head.down)):
            yield f"head.down.{branch}", Place(role="down", stage=column, source=branch, branch=branch + 1)


def block_states(architecture: Architecture, supernet: Architecture | None, input_size: Size) -> list[BlockState]:
    """Return the state of every search block, in the network's order.

    Without a supernet, a kernel path's full width is that of the widest path of the network, per input channel.
    """
    placed = {item.name: item for item in place_blocks(architecture, input_size)}
    widest_placed = {item.name: item for item in place_blocks(supernet, input_size)} if supernet else {}
    every = [item.block for item in (*widest_placed.values(), *placed.values())]
    sizes = sorted({size for block in every for size, _ in block.kernels})
    ratio = max((channels / block.in_channels for block in every for _, channels in block.kernels), default=0.0)
    most_tokens = max((block.tokens for block in every), default=0)
    states = []
    for name, place in places(architecture):
        item, full = placed[name], widest_placed.get(name)
        block = item.block
        if full is not None:
            widest = {size: dict(full.block.kernels).get(size, 0) for size in sizes}
        else:
            widest = {size: round(ratio * block.in_channels) for size in sizes}
        states.append(
            BlockState(
                name=name,
                place=place,
                block=block,
                size_in=item.size_in,
                size_out=item.size_out,
                widest=widest,
                tokens_widest=full.block.tokens if full is not None else most_tokens,
                cost=block_cost(item, architecture.token_size),
                widest_cost=block_cost(full, supernet.token_size) if full is not None and supernet else None,
                transformer_macs=transformer_part(item, architecture.token_size),
            )
        )
    return states


def transformer_part(placed: PlacedBlock, token_size: int) -> int:
    """Return the MACs a block would lose with its transformer."""
    without = replace(placed, block=replace(placed.block, tokens=0))
    return block_cost(placed, token_size).macs - block_cost(without, token_size).macs


def macs_by_place(architecture: Architecture, input_size: Size) -> tuple[dict[str, int], dict[str, int]]:
    """Return the network's MACs by stage and by branch; each adds up to the whole.

    The stem and the head stand for themselves in both; a fusion path counts for the branch it writes.
    """
    placed = {item.name: item for item in place_blocks(architecture, input_size)}
    total, headless = (cost(network, input_size).macs for network in (architecture, replace(architecture, head=None)))
    stages = {f"stage {index + 1}": 0 for index in range(len(architecture.stages))}
    branches = {f"branch {index + 1}": 0 for index in range(max(len(stage.branches) for stage in architecture.stages))}
    for name, place in places(architecture):
        if not place.in_head:
            macs = block_cost(placed[name], architecture.token_size).macs
            stages[f"stage {place.stage + 1}"] += macs
            branches[f"branch {place.branch + 1}"] += macs
    stem = {"stem": headless - sum(stages.values())}
    ends = {"head": total - headless} if architecture.head is not None else {}
    return {**stem, **stages, **ends}, {**stem, **branches, **ends}


def transformers_by_place(states: Sequence[BlockState]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the MACs of transformers by stage and by branch, keyed as `macs_by_place`; what has none is not there."""
    stages: dict[str, int] = {}
    branches: dict[str, int] = {}
    for state in states:
        place = state.place
        for found, key in (
            (stages, "head" if place.in_head else f"stage {place.stage + 1}"),
            (branches, "head" if place.in_head else f"branch {place.branch + 1}"),
        ):
            if state.transformer_macs:
                found[key] = found.get(key, 0) + state.transformer_macs
    return stages, branches
