"""What aligned kernel-path widths buy in time, at equal MACs: ragged networks beside networks of multiples of 4, 8, 16.

    python benchmarks/align.py --out runs/align                  # writes runs/align/table.md and times.json

A draw says how much of each kernel path is wanted. From it come, all at the same MACs: the ragged network; the ragged
one built again, which shows the noise; networks of multiples of 4, 8 and 16. Rounding to multiples also drops whole
paths, which saves calls. To tell the two apart, "ragged, paths of N" has just the paths of the aligned network.

All networks of a draw are measured in turn, round after round, in one process, and only ratios within a round are
used, so what else the machine does falls on all alike. Needs the extra [export]; CUDA is measured where there is one.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hrnas.cli import prepare_process

prepare_process()  # before torch loads

import onnxruntime  # noqa: E402
import torch  # noqa: E402

from cells import machine, markdown_table  # noqa: E402
from hrnas.arch.architecture import Architecture  # noqa: E402
from hrnas.arch.presets import search_space  # noqa: E402
from hrnas.costing.analytic import Size, cost  # noqa: E402
from hrnas.models.network import Network  # noqa: E402
from thinning import drawn_shares, network_of_multiples, path_widths  # noqa: E402

ALIGNMENTS = (4, 8, 16)
REFERENCE = "ragged"
Call = Callable[[], object]


def networks(supernet: Architecture, input_size: Size, share: float, seed: int) -> dict[str, Architecture]:
    """Return the networks of one draw by their names in the table."""
    shares = drawn_shares(supernet, seed)
    budget_macs = int(share * cost(supernet, input_size).macs)

    def network(multiple: int, paths: Architecture = supernet) -> Architecture:
        wanted = {path: shares[path] for path in path_widths(paths)}
        return network_of_multiples(supernet, input_size, wanted, multiple=multiple, budget_macs=budget_macs)

    aligned = {multiple: network(multiple) for multiple in ALIGNMENTS}
    return {
        REFERENCE: network(1),
        "ragged again": network(1),
        **{f"align {multiple}": aligned[multiple] for multiple in ALIGNMENTS},
        **{f"ragged, paths of {multiple}": network(1, aligned[multiple]) for multiple in (8, 16)},
    }


def eager_calls(model: Network, input_size: Size, device: str, *, train_batch: int) -> Iterator[tuple[str, Call]]:
    """Yield what is measured in torch, by name; the network is left on the device."""
    model.to(device, memory_format=torch.channels_last)
    precisions = (torch.float32,) if device == "cpu" else (torch.float32, torch.float16)
    for precision in precisions:
        for batch in (1, 8):
            name = f"torch {device}, forward, batch {batch}"
            yield (name if device == "cpu" else f"{name}, {precision}"), _forward(model, input_size, batch, precision)
    yield f"torch {device}, training step, batch {train_batch}", _training_step(model, input_size, train_batch)


def onnx_calls(model: Network, input_size: Size) -> Iterator[tuple[str, Call]]:
    """Yield what is measured in ONNX Runtime, by name: the exported network, its batch left open."""
    model = model.to("cpu").eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        image = torch.randn(2, 3, *input_size)
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(model, (image,), file, dynamo=True, dynamic_shapes=shapes, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin while they wait would slow whatever is measured next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        devices = {"cpu": "CPUExecutionProvider"}
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            devices["cuda"] = "CUDAExecutionProvider"
        for device, provider in devices.items():
            session = onnxruntime.InferenceSession(file, options, providers=[provider])
            for batch in (1, 8):
                images = {session.get_inputs()[0].name: torch.randn(batch, 3, *input_size).numpy()}
                yield (
                    f"onnxruntime {device}, forward, batch {batch}",
                    lambda session=session, images=images: session.run(None, images),
                )


def _forward(model: Network, input_size: Size, batch: int, precision: torch.dtype) -> Call:
    device = next(model.parameters()).device
    images = torch.randn(batch, 3, *input_size, device=device).contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        model.eval()
        with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            model(images)

    return forward


def _training_step(model: Network, input_size: Size, batch: int) -> Call:
    device = next(model.parameters()).device
    images = torch.randn(batch, 3, *input_size, device=device).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        model.train()
        model(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds(call: Call, *, is_cuda: bool) -> float:
    """Return how long a call takes."""
    if is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(architectures: dict[str, Architecture], input_size: Size, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every round: what was measured -> network -> one figure a round."""
    calls: dict[str, dict[str, Call]] = {}
    for name, architecture in architectures.items():
        torch.manual_seed(0)
        model = Network(architecture)
        measured = list(onnx_calls(model, input_size))
        measured += eager_calls(model, input_size, "cpu", train_batch=4)
        if torch.cuda.is_available():
            torch.manual_seed(0)
            measured += eager_calls(Network(architecture), input_size, "cuda", train_batch=8)
        for what, call in measured:
            calls.setdefault(what, {})[name] = call
    times: dict[str, dict[str, list[float]]] = {}
    for what, by_network in calls.items():
        is_cuda = "cuda" in what
        for call in by_network.values():  # compiles, allocates
            seconds(call, is_cuda=is_cuda)
            seconds(call, is_cuda=is_cuda)
        measured_rounds = max(5, rounds // 3) if "training" in what else rounds
        times[what] = {name: [] for name in by_network}
        names = list(by_network)
        for turn in range(measured_rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:  # nobody is always first
                times[what][name].append(seconds(by_network[name], is_cuda=is_cuda))
    return times


def ratio_text(times: dict[str, list[float]], name: str, reference: str) -> str:
    """Return the median ratio of a network's times to the reference's, round by round, and its quartiles."""
    ratios = [one / other for one, other in zip(times[name], times[reference], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["hr-small", "hr"])
    parser.add_argument("--transformers", default="none", help="a transformer's time hides that of the paths")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5], help="budgets, of the supernet's MACs")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--input-size", default="128x192")
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    height, width = (int(side) for side in arguments.input_size.split("x"))
    arguments.out.mkdir(parents=True, exist_ok=True)

    records, shapes = [], []
    for space in arguments.spaces:
        supernet = search_space(space, arguments.transformers).supernet(arguments.classes)
        for share in arguments.shares:
            gathered: dict[str, dict[str, list[float]]] = {}
            for draw in range(arguments.draws):
                drawn = networks(supernet, (height, width), share, draw)
                for name, network in drawn.items():
                    price, paths = cost(network, (height, width)), path_widths(network)
                    shapes.append(
                        [space, f"{share:.0%}", draw, name, f"{price.macs:,}", f"{price.params:,}", len(paths)]
                    )
                for what, times in measure(drawn, (height, width), arguments.rounds).items():
                    for name, figures in times.items():
                        gathered.setdefault(what, {}).setdefault(name, []).extend(figures)
                print(f"{space} {share:.0%} draw {draw}: measured", flush=True)
            records += [
                {"space": space, "share": share, "measured": what, "seconds": times} for what, times in gathered.items()
            ]
            (arguments.out / "times.json").write_text(json.dumps(records), encoding="utf-8")

    columns = [name for name in drawn if name != REFERENCE]
    rows = []
    for record in records:
        times = record["seconds"]
        texts = [ratio_text(times, name, REFERENCE) for name in columns]
        same_paths = [ratio_text(times, f"align {multiple}", f"ragged, paths of {multiple}") for multiple in (8, 16)]
        rows.append([record["space"], f"{record['share']:.0%}", record["measured"], *texts, *same_paths])
    headers = [
        "space",
        "MACs",
        "measured",
        *columns,
        "align 8 : ragged with its paths",
        "align 16 : ragged with its paths",
    ]
    text = "\n\n".join(
        [
            machine({"onnxruntime": onnxruntime.__version__}),
            f"Input {arguments.input_size}; time over the ragged network's, median of the rounds and quartiles.",
            markdown_table(headers, rows),
            markdown_table(["space", "share", "draw", "network", "MACs", "parameters", "kernel paths"], shapes),
        ]
    )
    (arguments.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
