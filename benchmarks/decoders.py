"""How far off the decoders of heatmaps are, on maps whose joints are known.

    python benchmarks/decoders.py

Prints the mean distance and what 95 % stay below, in pixels of the map, for joints within 3 pixels of a border and for
those more than 7 away. Kinds of maps, beside the target as it is: white noise of 2 % of its height; smooth noise of
3 %; of height 0.3 to 0.9 with smooth noise; 1.2 times wider across and 1.5 times down, with smooth noise; a second,
lower peak within a few pixels, with smooth noise.
"""

from typing import get_args

import torch
from torch import Tensor

from hrnas.tasks.heatmaps import STRIDE, Decoder, located, targets_of

SIZE = (64, 48)
SIGMA = 2.0
NUMBER = 2000


def drawn(points: Tensor, sigma: float = SIGMA) -> Tensor:
    """Return a Gaussian at points of the map (N, 2), (N, 1, H', W')."""
    joints = torch.cat([points * STRIDE + (STRIDE - 1) / 2, torch.ones(len(points), 1)], 1)
    return targets_of(joints[:, None], SIZE, sigma)


def smooth_noise(generator: torch.Generator) -> Tensor:
    """Return noise of standard deviation 1 that changes over 1.5 pixels."""
    white = torch.randn(NUMBER, 1, *SIZE, generator=generator)
    steps = torch.arange(-4.0, 5)
    kernel = torch.exp(-(steps**2) / (2 * 1.5**2))
    noise = torch.nn.functional.conv2d(white, (kernel[:, None] * kernel)[None, None], padding=4)
    return noise / noise.std()


def kinds(points: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return maps of each kind with their joints at points (N, 2)."""
    target, noise = drawn(points), smooth_noise(generator)
    low = 0.3 + 0.6 * torch.rand(NUMBER, 1, 1, 1, generator=generator)
    other = points + 5 * torch.randn(NUMBER, 2, generator=generator)
    across = drawn(points, 1.2 * SIGMA).amax(2, keepdim=True)
    down = drawn(points, 1.5 * SIGMA).amax(3, keepdim=True)
    return {
        "as it is": target,
        "white noise 2 %": target + 0.02 * torch.randn(target.shape, generator=generator),
        "smooth noise 3 %": target + 0.03 * noise,
        "low": low * target + 0.03 * noise,
        "wide": 0.7 * down * across + 0.03 * noise,
        "second peak": 0.7 * target + 0.25 * drawn(other) + 0.02 * noise,
    }


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([float(SIZE[1]), float(SIZE[0])])
    inside = torch.rand(NUMBER, 2, generator=generator) * (sides - 15) + 7
    edge = torch.rand(NUMBER, 2, generator=generator) * sides - 0.5
    axis = torch.randint(0, 2, (NUMBER,), generator=generator)
    near = 3 * torch.rand(NUMBER, generator=generator) - 0.5
    edge[torch.arange(NUMBER), axis] = near
    decoders = get_args(Decoder)
    print(f"{'':28}", *(f"{decoder:>14}" for decoder in decoders))
    for place, points in (("inside", inside), ("border", edge)):
        for kind, maps in kinds(points, generator).items():
            cells = []
            for decoder in decoders:
                found = (located(maps, decoder, SIGMA)[:, 0, :2] - (STRIDE - 1) / 2) / STRIDE
                errors = (found - points).norm(dim=1)
                cells.append(f"{errors.mean():.3f} / {errors.quantile(0.95):.2f}")
            print(f"{place + ', ' + kind:28}", *(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
