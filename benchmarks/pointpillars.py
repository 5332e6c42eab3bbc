"""The two-dimensional network of PointPillars beside ours on its own map: MACs, parameters, time.

    python benchmarks/pointpillars.py                          # MACs and parameters; on a CPU time as ratios
    python benchmarks/pointpillars.py --device cuda            # on a GPU milliseconds as well
    python benchmarks/pointpillars.py --networks RUN ...       # with networks that searches have found

PointPillars (Lang et al. 2019, section 2.2, the network for cars and its anchors for three classes as it is mostly
trained): three blocks of 3x3 convolutions, (4, 64), (6, 128) and (6, 256) with strides 2, 4 and 8, each brought back to
stride 2 in 128 channels by a transposed convolution, all with batch norm and ReLU; concatenated, 1x1 convolutions to
scores, boxes and directions of 6 anchors. Written from the paper; its pillar net is not part of it, nor of ours here.
The networks take turns, so that what else the machine does meets them alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from hrnas.cli import prepare_process

prepare_process()  # before torch loads

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from cells import machine, markdown_table  # noqa: E402
from hrnas.arch.architecture import AnchorHead, Architecture, Pillars  # noqa: E402
from hrnas.arch.presets import search_space  # noqa: E402
from hrnas.costing.counted import count  # noqa: E402
from hrnas.models.loading import load  # noqa: E402
from hrnas.models.network import build_model  # noqa: E402
from hrnas.searching.plan import uniform_network  # noqa: E402

SIZE = (496, 432)
CHANNELS = 64
HEAD = AnchorHead(outputs=3)
BLOCKS = ((4, 64, 2, 1), (6, 128, 2, 2), (6, 256, 2, 4))
"""Of each: convolutions, channels, stride of the first, and of the transposed convolution behind it."""
UP = 128


class PointPillars2D(nn.Module):
    """(B, 64, H, W) -> (B, 72, H / 2, W / 2); H and W divisible by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.ups = nn.ModuleList(), nn.ModuleList()
        width = CHANNELS
        for convolutions, channels, stride, up in BLOCKS:
            widths = [width] + [channels] * convolutions
            self.blocks.append(
                nn.Sequential(
                    *(
                        _normed(nn.Conv2d(one, other, 3, stride if place == 0 else 1, 1, bias=False))
                        for place, (one, other) in enumerate(pairwise(widths))
                    )
                )
            )
            self.ups.append(_normed(nn.ConvTranspose2d(channels, UP, up, up, bias=False)))
            width = channels
        self.head = nn.Conv2d(UP * len(BLOCKS), HEAD.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for block, up in zip(self.blocks, self.ups, strict=True):
            x = block(x)
            maps.append(up(x))
        return self.head(torch.cat(maps, dim=1))


def _normed(convolution: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels, eps=1e-3, momentum=0.01), nn.ReLU())


def networks(runs: list[Path]) -> dict[str, Callable[[], nn.Module]]:
    """Return makers of the networks by name, each on the map of pillars."""
    made: dict[str, Callable[[], nn.Module]] = {"PointPillars": PointPillars2D}
    for space, transformers in (("hr", "none"), ("hr", "all"), ("hr-small", "none")):
        whole = search_space(space, transformers, stem_stride=2).supernet(3, head="anchors", pillars=Pillars())
        words = f"{space}, {transformers if transformers != 'none' else 'no'} transformers"
        made[f"{words}: supernet"] = lambda whole=whole: _flat(whole)
        made[f"{words}: 1/4 of the widths"] = lambda whole=whole: _flat(uniform_network(whole, 0.25))
    for run in runs:
        made[run.name] = lambda run=run: _flat(load(run).architecture)
    return made


def _flat(architecture: Architecture) -> nn.Module:
    return build_model(replace(architecture, pillars=None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", type=Path, nargs="*", default=[], help="run directories")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1, help="maps at a time")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device, is_gpu = torch.device(given.device), given.device != "cpu"
    made = networks(given.networks)
    costs, times = {}, {name: [] for name in made}
    for name, make in made.items():
        with torch.device("meta"):
            model = make().eval()
        costs[name] = count(model, SIZE, CHANNELS)
    torch.manual_seed(0)
    models = {name: make().eval().to(device, memory_format=torch.channels_last) for name, make in made.items()}
    image = torch.randn(given.batch, CHANNELS, *SIZE, device=device).to(memory_format=torch.channels_last)
    for number in range(1 + given.rounds):  # the first one warms up
        for name, model in models.items():
            seconds = _seconds(model, image, repeats=20 if is_gpu else 1)
            if number:
                times[name].append(seconds)
    first = "PointPillars"
    rows = []
    for name, seconds in times.items():
        ratios = sorted(one / other for one, other in zip(seconds, times[first], strict=True))
        rows.append(
            [
                name,
                f"{costs[name].macs:,}",
                f"{costs[name].params:,}",
                f"{costs[name].macs / costs[first].macs:.3f}",
                f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]",
                *([f"{1000 * statistics.median(seconds) / given.batch:.2f}"] if is_gpu else []),
            ]
        )
    titles = ["network", f"MACs at {SIZE[0]}x{SIZE[1]}", "parameters", "MACs / PointPillars", "time / PointPillars"]
    print(f"{machine()} Float32, eager, on {device.type}, {given.batch} map(s) at a time.")
    print(markdown_table([*titles, *(["ms a map"] if is_gpu else [])], rows))


@torch.no_grad()
def _seconds(model: nn.Module, image: Tensor, *, repeats: int) -> float:
    """Return the mean seconds of a forward pass."""
    if image.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        model(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


if __name__ == "__main__":
    main()
