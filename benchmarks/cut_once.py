"""The one-shot baseline: train the supernet wide, cut it once to the budget, fine-tune; one schedule over all of it.

    python benchmarks/cut_once.py magnitude 40000000 supernet.json toycity --run runs/cut-once --steps 480 ...

Before the MACs of the budget comes the order in which units go: `magnitude`, the smallest |factor| first, or
`magnitude-per-mac`. After it come the words of `hrnas train`. The cut is made after 70 % of the steps, where a search
has its final shape too; optimizer state and averages are cut along. There is no penalty, and factors learn like all the
rest. The loop is that of `hrnas train`, without checkpoints. Prints the result as one JSON object, last.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrnas.cli import VERBS, parse_options, prepare_process

prepare_process()  # before torch loads

import torch  # noqa: E402

from hrnas.arch.file import read_architecture  # noqa: E402
from hrnas.commands.recorder import Recorder  # noqa: E402
from hrnas.commands.resolved import resolved_config  # noqa: E402
from hrnas.commands.run_directory import check_free, create_run  # noqa: E402
from hrnas.commands.session import open_training_session  # noqa: E402
from hrnas.commands.train import TrainOptions  # noqa: E402
from hrnas.costing.analytic import cost  # noqa: E402
from hrnas.engine.averages import Averages  # noqa: E402
from hrnas.engine.optimization import learning_rate, make_optimizer  # noqa: E402
from hrnas.engine.training import TrainState, train_step  # noqa: E402
from hrnas.models.network import Network  # noqa: E402
from hrnas.searching.cut import apply_plan  # noqa: E402
from hrnas.searching.plan import Plan  # noqa: E402
from hrnas.searching.units import factors, importance_factors, num_units, unit_costs, unit_groups  # noqa: E402
from thinning import cut_in_order  # noqa: E402

CUT_SHARE = 0.7
"""Of the steps; `shrink.end` of a search."""


def cut_once(options: TrainOptions, *, order: str, budget_macs: int) -> dict[str, Any]:
    """Train, cut once to the budget, train on; return the result. options.architecture is the supernet's file."""
    session = open_training_session(options.data, options)
    task, input_size, run = session.task, session.input_size, Path(str(options.run))
    supernet = read_architecture(options.architecture)
    torch.manual_seed(options.seed)
    model = Network(supernet)
    model.to(session.device, memory_format=torch.channels_last)
    check_free(run, overwrite=options.overwrite)
    config = resolved_config(options, data=session.description.to_dict(), input_size=input_size)
    create_run(run, verb="train", config=config, overwrite=options.overwrite)
    state = TrainState(
        model=model,
        optimizer=make_optimizer(model, options.optimizer),
        averages=Averages(model, options.batch_size),
    )
    recorder = Recorder(run=run, session=session, options=options)
    recorder.begin(supernet, reason="given", units=num_units(unit_groups(supernet, input_size)))
    cut_step = round(CUT_SHARE * options.steps)
    batches = session.train_batches(
        batch_size=options.batch_size,
        seed=options.seed,
        first_step=0,
        num_steps=options.steps,
        augment=options.augment,
    )
    started = time.monotonic()
    for batch in batches:
        rate = learning_rate(options.optimizer, step=state.step, steps=options.steps, batch_size=options.batch_size)
        inputs, targets = session.prepared(batch.inputs), batch.targets.to(session.device)
        loss = train_step(state, inputs, targets, task, rate, accumulate=options.accumulate)
        if state.step == cut_step:
            plan = plan_by_magnitude(model, input_size, order, budget_macs)
            apply_plan(plan, model, state.optimizer, state.averages.tensors)
            recorder.cut(state.step, plan, units=int(plan.kept.sum()), budget=None, change=None)
            print(f"step {state.step}: {plan}", file=sys.stderr)
        state.seconds = time.monotonic() - started
        if state.step % options.log_every == 0 or state.step == options.steps:
            recorder.train_line(state, loss=loss, rate=rate, price=cost(model.architecture, input_size))
        if state.step in options.evaluation_steps:
            recorder.validate(state, has_final_shape=state.step >= cut_step)
    price = cost(model.architecture, input_size)
    return recorder.finish(
        {
            "verb": "train",
            "run": str(run),
            "task": session.description.task,
            "budget": None,
            "budget_macs": budget_macs,
            "supernet": None,
            "found": {"macs": price.macs, "params": price.params},
            "input_size": list(input_size),
            "steps": options.steps,
            "seconds": round(state.seconds, 1),
            "metric": task.metric,
            f"validation_{task.metric}": recorder.best,
        }
    )


def plan_by_magnitude(model: Network, input_size: tuple[int, int], order: str, budget_macs: int) -> Plan:
    """Plan the cut to the budget that takes the units of the smallest |factor| (per MAC) first."""
    groups = unit_groups(model.architecture, input_size)
    size = importance_factors(factors(model, groups)).cpu()
    if order == "magnitude-per-mac":
        size = size / unit_costs(groups)["macs"]
    return cut_in_order(model.architecture, input_size, size.argsort(stable=True), budget_macs)


def main(words: Sequence[str]) -> None:
    if len(words) < 3 or words[0] not in ("magnitude", "magnitude-per-mac"):
        raise SystemExit(__doc__)
    options = parse_options("train", VERBS["train"], TrainOptions, words[2:])
    print(json.dumps(cut_once(options, order=words[0], budget_macs=int(words[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
