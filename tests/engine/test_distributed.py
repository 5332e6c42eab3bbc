"""Several processes against one: the loss curve over cuts, gradients, statistics, errors; and what they agree on."""

import os
import re
import signal
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.ranks import run_ranks
from hrnas.data.description import DataDescription
from hrnas.engine.averages import Averages
from hrnas.engine.distributed import ALONE, Processes, check_shares, join_processes, meet
from hrnas.engine.optimization import OptimizerOptions, make_optimizer
from hrnas.engine.training import TrainState, train_step
from hrnas.errors import BudgetError, InputError, LostProcessError, NonFiniteError
from hrnas.nn.sync_norm import SyncNorm
from hrnas.searching.shrinker import Shrinker
from hrnas.searching.units import factors, unit_groups
from hrnas.tasks import make_task
from searching.networks import SIZE, randomize, tiny_network

BATCH = 8
TASK = make_task(DataDescription(task="segmentation", names=("a", "b", "c"), colors=((0, 0, 0), (1, 1, 1), (2, 2, 2))))


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return images and masks whose void is unevenly spread: the last images of a batch are almost all void."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, *SIZE, generator=generator, dtype=torch.float64)
    smooth = nn.functional.avg_pool2d(images[:, 0], 3, 1, 1)
    masks = (smooth > 0).to(torch.uint8) + (smooth > 0.3).to(torch.uint8)
    for position in range(BATCH):
        masks[position, : position * SIZE[0] // BATCH] = 255
    return images, masks


def share(processes: Processes, whole: Tensor) -> Tensor:
    return whole.chunk(processes.count)[processes.rank]


def new_state(processes: Processes, *, sync_norm: bool = False) -> TrainState:
    model = tiny_network(0).double()
    scales = factors(model, unit_groups(model.architecture, SIZE))
    optimizer = make_optimizer(model, OptimizerOptions(), scaled=scales, scale=8.0)
    return TrainState(
        model=model, optimizer=optimizer, averages=Averages(model, BATCH), processes=processes, sync_norm=sync_norm
    )


def everything(state: TrainState) -> dict[str, Tensor]:
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    return {
        **{name: value.clone() for name, value in state.model.state_dict().items()},
        **{f"average {name}": value.clone() for name, value in state.averages.tensors.items()},
        **{
            f"{entry} {names[parameter]}": value.clone()
            for parameter, values in state.optimizer.state.items()
            for entry, value in values.items()
        },
    }


def search(processes: Processes, steps: int, sync_norm: bool, accumulate: int) -> dict[str, Any]:
    """Run a small search and return its losses, the gradients of the step after each cut, and all it ends with."""
    state = new_state(processes, sync_norm=sync_norm)
    shrinker = Shrinker(
        state.model, state.optimizer, input_size=SIZE, budget="macs=50k", steps=steps,
        averages=state.averages.tensors, agree=processes.agree,
    )  # fmt: skip
    gradients: list[Tensor] = []
    has_cut = False

    def note(*_: Any) -> None:
        if has_cut:
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in state.model.parameters()]))

    state.optimizer.register_step_pre_hook(note)
    losses = []
    for step in range(steps):
        images, masks = (share(processes, whole) for whole in batch(step))
        losses.append(train_step(state, images, masks, TASK, 0.02, accumulate=accumulate))
        has_cut = shrinker.step()
        if has_cut:
            state.wrap()
    return {"losses": losses, "gradients": gradients, "macs": shrinker.cost.macs, "state": everything(state)}


@cache
def searches(count: int, steps: int, sync_norm: bool, accumulate: int) -> list[dict[str, Any]]:
    return run_ranks(count, search, steps, sync_norm, accumulate)


def test_processes_with_synchronised_norms_follow_one_process_over_all_cuts() -> None:
    (one,) = searches(1, 50, False, 1)
    assert len(one["gradients"]) >= 4, "there must be cuts in between"
    assert one["macs"] <= 50_000
    for two in searches(2, 50, True, 1):
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-8)
        assert two["macs"] == one["macs"]
        for found, expected in zip(two["gradients"], one["gradients"], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize(("count", "accumulate", "alone"), [(2, 1, 2), (2, 2, 4)])
def test_processes_are_micro_batches_of_one_process(count: int, accumulate: int, alone: int) -> None:
    (one,) = searches(1, 20, False, alone)
    assert one["losses"] != searches(1, 20, False, 1)[0]["losses"], "norms that see parts of the batch differ"
    for two in searches(count, 20, False, accumulate):
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-8)
        assert two["gradients"]
        for found, expected in zip(two["gradients"], one["gradients"], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize(("steps", "sync_norm", "accumulate"), [(50, True, 1), (20, False, 1), (20, False, 2)])
def test_all_processes_hold_the_same_bits(steps: int, sync_norm: bool, accumulate: int) -> None:
    first, second = searches(2, steps, sync_norm, accumulate)
    assert first["losses"] == second["losses"]
    for one, other in zip(first["gradients"], second["gradients"], strict=True):
        assert np.array_equal(one, other)
    assert first["state"].keys() == second["state"].keys()
    for name, value in first["state"].items():
        assert np.array_equal(value, second["state"][name]), name


def whole_batch_gradients(processes: Processes) -> list[Tensor]:
    """Cut by hand, wrap anew, and return the gradient of the next step."""
    state = new_state(processes)
    randomize(state.model, 1)
    found: list[Tensor] = []
    state.optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([parameter.grad.flatten() for parameter in state.model.parameters()]))
    )
    for _ in range(3):
        last = weakref.ref(state.replica)
        state.wrap()
        assert processes.count == 1 or last() is None, "its hooks would live on with it"
        train_step(state, *(share(processes, whole) for whole in batch(0)), TASK, 0.0, accumulate=2 // processes.count)
    return found


def test_wrapping_again_leaves_no_hook_behind() -> None:
    expected = whole_batch_gradients(ALONE)
    for found in run_ranks(2, whole_batch_gradients):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-9, atol=1e-12)


def repeated_gradients(processes: Processes) -> list[Tensor]:
    """Return the gradients of the same step, of unchanged weights, before and after DDP has moved them about."""
    state = new_state(processes)
    found: list[Tensor] = []
    state.optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([parameter.grad.flatten() for parameter in state.model.parameters()]))
    )
    for _ in range(3):
        train_step(state, *(share(processes, whole) for whole in batch(0)), TASK, 0.0)
    return found


def test_gradients_of_three_processes_have_the_same_bits_before_and_after_ddp_settles() -> None:
    for first, *later in run_ranks(3, repeated_gradients):
        for other in later:
            assert np.array_equal(first, other)


def statistics(processes: Processes) -> dict[str, Any]:
    state = new_state(processes)
    train_step(state, *(share(processes, whole) for whole in batch(0)), TASK, 0.01)
    return {name: value for name, value in state.model.state_dict().items() if "running" in name}


def test_running_statistics_are_the_mean_over_the_processes() -> None:
    halves = []
    for half in range(2):
        model = tiny_network(0).double().train()
        model(batch(0)[0].chunk(2)[half])
        halves.append(model.state_dict())
    for found in run_ranks(2, statistics):
        for name, value in found.items():
            np.testing.assert_allclose(value, ((halves[0][name] + halves[1][name]) / 2).numpy(), err_msg=name)


@dataclass
class Broken:
    """The task's loss, with a term or a gradient that is not finite on one process alone."""

    rank: int
    what: str

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        terms = TASK.loss_terms(outputs, targets)
        zero = (0 * outputs).sum()
        if self.rank != 1:
            return {**terms, "other": zero}
        return {**terms, "other": outputs.sum() * float("nan") if self.what == "term" else zero.sqrt()}

    def weight(self, targets: Tensor) -> Tensor:
        return TASK.weight(targets)


def broken_step(processes: Processes, what: str, accumulate: int) -> list[Any]:
    state = new_state(processes)
    shares = [share(processes, whole) for whole in batch(0)]
    train_step(state, *shares, TASK, 0.01)
    before = {name: value for name, value in everything(state).items() if "running" not in name}
    with pytest.raises(NonFiniteError) as error:
        train_step(state, *shares, Broken(processes.rank, what), 0.01, accumulate=accumulate)
    after = everything(state)
    kept = all(torch.equal(value, after[name]) for name, value in before.items() if "tracked" not in name)
    return [str(error.value), kept, all(parameter.grad is None for parameter in state.model.parameters()), state.step]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("what", "named"), [("term", "Loss term 'other' became nan"), ("gradient", "The gradient")])
def test_what_is_not_finite_on_one_process_stops_all_of_them_alike(what: str, named: str, accumulate: int) -> None:
    first, second = run_ranks(2, broken_step, what, accumulate)
    assert first == second
    message, *rest = first
    assert message.startswith(named)
    assert "at step 2, before the optimizer step" in message
    assert rest == [True, True, 1]


def talk(processes: Processes) -> dict[str, Any]:
    rank = processes.rank
    return {
        "sum": processes.sum(torch.tensor([2**60 + rank, -rank])),
        "agreed": processes.agree(torch.tensor([0.5 + rank, 1.0], dtype=torch.float64)),
        "bools": processes.agree(torch.tensor([rank == 0, rank == 1])),
        "any": [processes.any(rank == 2), processes.any(False), processes.any(True)],
        "zero": processes.is_zero,
    }


def test_processes_sum_and_agree() -> None:
    for rank, found in enumerate(run_ranks(3, talk)):
        assert found["sum"].tolist() == [3 * 2**60 + 3, -3]
        assert found["agreed"].tolist() == [0.5, 1.0]
        assert found["agreed"].dtype == np.float64
        assert found["bools"].tolist() == [True, False]
        assert found["bools"].dtype == bool
        assert found["any"] == [True, False, True]
        assert found["zero"] == (rank == 0)


def fail_on(processes: Processes, ranks: tuple[int, ...], kind: type[Exception]) -> list[Any]:
    found: list[Any] = []
    for _ in range(2):  # they meet again after it
        try:
            with processes.sharing_errors():
                if processes.rank in ranks:
                    raise kind(f"Sâmple of process {processes.rank} is broken.")
            found.append(None)
        except (InputError, BudgetError) as error:
            found.append([type(error).__name__, str(error), getattr(error, "exit_code", None)])
    return found


@pytest.mark.parametrize("ranks", [(1,), (0,), (2, 1)])
@pytest.mark.parametrize("kind", [InputError, BudgetError])
def test_an_error_of_some_is_that_of_the_first_on_all(ranks: tuple[int, ...], kind: type[InputError]) -> None:
    expected = [kind.__name__, f"Sâmple of process {min(ranks)} is broken.", kind.exit_code]
    assert run_ranks(3, fail_on, ranks, kind) == [[expected, expected]] * 3


def read_shared(processes: Processes) -> list[Any]:
    def read() -> Any:
        yield from (1, 2)
        if processes.rank == 1:
            raise InputError("File x is truncated.")
        yield 3

    found: list[Any] = []
    try:
        for item in processes.shared(read()):
            found.append(item)
    except InputError as error:
        found.append(str(error))
    return [*found, *processes.shared(iter([4]))]


def test_an_error_of_one_reader_stops_all_at_the_same_batch() -> None:
    assert run_ranks(2, read_shared) == [[1, 2, "File x is truncated.", 4]] * 2


def test_a_restarted_group_meets_apart_from_what_the_dead_one_left_in_the_store() -> None:
    store = torch.distributed.HashStore()
    store.set("hrnas/hello/1", "dead")
    store.set("hrnas/welcome/1", "dead old")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(meet, store, 1, 2, patience=timedelta(seconds=10))
        time.sleep(0.1)  # the second process is first to look
        first = meet(store, 0, 2, patience=timedelta(seconds=10))
        second = other.result()
    first.set("address", "new")
    assert second.check(["address"])
    assert second.get("address") == b"new"
    assert not torch.distributed.PrefixStore("hrnas/old", store).check(["address"])


def lose(processes: Processes) -> Any:
    if processes.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)

    def step() -> None:
        with processes.guard("Start it again."):
            processes.any(False)

    with pytest.raises(LostProcessError) as error, processes.guard("Continue with 'hrnas resume x'."):
        step()
    return [str(error.value), error.value.exit_code]


def test_who_is_left_says_so_in_one_line() -> None:
    started = time.monotonic()
    found, gone = run_ranks(2, lose, may_die=True)
    assert time.monotonic() - started < 30
    assert gone is None
    message, code = found
    assert re.fullmatch(r"Process 0 of 0\.\.1 lost another \(.*\)\. Continue with 'hrnas resume x'\.", message), message
    assert code == 1


def wait_for_silent(processes: Processes) -> Any:
    others_id = int(processes.sum(torch.tensor(os.getpid() * processes.rank)))

    def read() -> Any:
        yield 1
        if processes.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)  # silent, with its connections open
        yield 2

    found: list[Any] = []
    try:
        with processes.guard("Continue with 'hrnas resume x'."):
            found.extend(processes.shared(read(), is_patient=False))
    except LostProcessError as error:
        found.append(str(error))
    os.kill(others_id, signal.SIGKILL)
    return found


def test_a_silent_process_is_noticed_within_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrnas.engine.distributed.TIMEOUT", timedelta(seconds=2))
    started = time.monotonic()
    found, _ = run_ranks(2, wait_for_silent, may_die=True)
    assert time.monotonic() - started < 20
    assert found[0] == 1
    assert re.fullmatch(r"Process 0 of 0\.\.1 lost another \(.*\)\. Continue with 'hrnas resume x'\.", found[1])


def be_late(processes: Processes) -> str:
    with processes.sharing_errors():
        time.sleep(4 * processes.rank)
    return "met"


def test_outside_of_the_steps_one_may_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrnas.engine.distributed.TIMEOUT", timedelta(seconds=2))
    assert run_ranks(2, be_late) == ["met", "met"]


def test_an_error_of_our_own_is_no_lost_process() -> None:
    with pytest.raises(RuntimeError, match="shapes"), Processes(count=2).guard("Start it again."):
        raise RuntimeError("shapes do not fit")


def test_one_process_costs_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2))
    assert ALONE.wrap(model, sync_norm=True) is model
    assert not isinstance(model[0], SyncNorm)
    value = torch.ones(2)
    assert ALONE.agree(value) is ALONE.sum(value) is value
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert list(ALONE.shared(iter([1, 2]))) == [1, 2]
    assert join_processes(torch.device("cpu")) is ALONE
    assert not torch.distributed.is_initialized()


def join_again(processes: Processes) -> bool:
    again = join_processes(torch.device("cpu"))
    return again == processes and again.control is processes.control and again.reduction is processes.reduction


def test_who_has_joined_keeps_the_groups() -> None:
    assert run_ranks(2, join_again) == [True, True]


def drawn(processes: Processes) -> list[Tensor]:
    found = []
    for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0)):
        processes.seed(seed, step)
        found.append(torch.rand(4))
    return found


def test_random_numbers_follow_from_seed_step_and_rank() -> None:
    first, second = run_ranks(2, drawn)
    assert np.array_equal(first[0], first[3])
    assert len({value.tobytes() for value in [*first[:3], *second[:3]]}) == 6


def test_a_batch_that_cannot_be_dealt_out_is_refused() -> None:
    check_shares(12, 3, 2)
    with pytest.raises(InputError) as error:
        check_shares(16, 3, 2)
    assert str(error.value) == (
        "Batch size is 16, over all processes; it cannot be dealt out evenly to 3 processes and 2 micro-batches on "
        "each. Set batch_size to 12 or 18."
    )
    with pytest.raises(InputError, match=r"evenly to 4 micro-batches on each\. Set batch_size to 4\."):
        check_shares(3, 1, 4)
