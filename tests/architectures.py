"""Random small valid architectures, for tests: by seed (`random_architecture`) and for hypothesis (`architectures`)."""

from itertools import pairwise
from random import Random

from hypothesis import strategies as st

from hrnas.arch.architecture import Architecture, Block, ClassHead, DenseHead, FusionPath, Head, Stage, StemConv


def random_architecture(random: Random, *, min_width: int = 1, max_width: int = 9) -> Architecture:
    """Return a small valid architecture of 1-4 branches: odd widths, missing kernels, empty blocks, tokens or none.

    With a dense head, one of classes or none, ReLU or Swish, squeeze-excitation in some blocks of some networks.

    random: all choices come from it, `Random(seed)` gives the same architecture every time.
    min_width, max_width: bounds of the channels of every map.
    """

    def width() -> int:
        return random.randint(min_width, max_width)

    squeezed = random.choice((0.0, 0.0, 0.5))

    def block(in_channels: int, out_channels: int, stride: int = 1) -> Block:
        sizes = [size for size in (1, 3, 5, 7) if random.random() < 0.5]
        return Block(
            in_channels=in_channels,
            out_channels=out_channels,
            stride=stride,
            kernels=tuple((size, random.randint(1, 7)) for size in sizes),
            tokens=random.randint(1, 6) if random.random() < 0.2 else 0,
            shift=not sizes and random.random() < 0.5,
            squeeze=random.randint(1, 5) if sizes and random.random() < squeezed else 0,
        )

    stem = tuple(StemConv(out_channels=width(), stride=random.choice((1, 2))) for _ in range(random.randint(1, 2)))
    widths = [stem[-1].out_channels]
    stages = []
    for _ in range(random.choice((1, 2, 2, 3))):
        num_in = len(widths)
        num_fused = num_in - 1 if num_in > 1 and random.random() < 0.15 else num_in
        num_out = min(4, num_fused + random.choice((0, 1, 1, 2)))
        fused = [width() for _ in range(num_fused)]
        paths = tuple(
            FusionPath(
                source=source, target=target, block=block(widths[source], fused[target], 2 if target > source else 1)
            )
            for target in range(num_fused)
            for source in range(num_in)
            # Paths to a neighbour may be missing; those from a branch to itself and from one that ends here stay.
            if source == target or (abs(source - target) == 1 and (source == num_fused or random.random() < 0.8))
        )
        grow = []
        while len(fused) < num_out:
            grow.append(block(fused[-1], width(), 2))
            fused.append(grow[-1].out_channels)
        branches = []
        for branch in range(num_out):
            blocks = []
            for _ in range(random.randint(0, 2)):
                blocks.append(block(fused[branch], random.choice((fused[branch], width()))))
                fused[branch] = blocks[-1].out_channels
            branches.append(tuple(blocks))
        stages.append(Stage(paths=paths, grow=tuple(grow), branches=tuple(branches)))
        widths = fused
    head: Head | None = None
    kind = random.choice(("dense", "dense", "classes", None))
    if kind == "dense":
        head = DenseHead(block=block(sum(widths), width()), outputs=random.randint(1, 5))
    elif kind == "classes":
        wider = [width() for _ in widths]
        head = ClassHead(
            widen=tuple(block(narrow, wide) for narrow, wide in zip(widths, wider, strict=True)),
            down=tuple(block(wide, below, 2) for wide, below in pairwise(wider)),
            features=width(),
            outputs=random.randint(1, 5),
            dropout=random.choice((0.2, 0.0)),
        )
    return Architecture(
        name=random.choice(("random", "straße 2×2", 'quote " and \\')),
        stem=stem,
        stages=tuple(stages),
        head=head,
        in_channels=random.choice((3, 1, 4)),
        activation=random.choice(("relu", "relu", "swish")),
        token_size=random.choice((2, 4)),
        attention_heads=random.choice((1, 2)),
        dropout=random.choice((0.1, 0.0)),
        norm_momentum=random.choice((0.01, 0.1)),
        norm_eps=random.choice((1e-3, 1e-5)),
    )


def architectures() -> st.SearchStrategy[Architecture]:
    """Return the hypothesis strategy over `random_architecture`."""
    return st.builds(random_architecture, st.randoms(use_true_random=False))


def sizes() -> st.SearchStrategy[tuple[int, int]]:
    """Return the hypothesis strategy of input sizes (height, width), odd ones included."""
    return st.tuples(st.integers(9, 70), st.integers(9, 70))
