"""The processes of one run, as torchrun starts them. One process is the usual case: nothing is started or sent then.

Three groups: gradients and batch norms travel in `reduction` (nccl on CUDA, gloo elsewhere), small decisions in
`control` (gloo); both give up within a minute. What one process may do alone for long (reading the data, a large
checkpoint) is waited for in the default group (gloo), which is patient. A process that dies shows in all three at once:
its connections break.
"""

import atexit
import os
import re
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from hrnas.errors import HrnasError, InputError, LostProcessError
from hrnas.nn.sync_norm import SyncNorm, synchronize_norms

TIMEOUT: Final = timedelta(seconds=45)
"""How long a process waits for the others within a step."""
PATIENCE: Final = timedelta(hours=2)
"""And outside of the steps, where one may have more to do than the others."""
_LAUNCHED: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those of the run.

    rank: 0 .. count - 1; rank zero decides, writes and prints. local_rank: among those of this machine.
    reduction, control: process groups; None for the default one, or when there is one process.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    reduction: Any = None
    control: Any = None

    @property
    def is_zero(self) -> bool:
        """True for the process that decides, writes and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module, *, sync_norm: bool = False) -> nn.Module:
        """Return the module to train: the model itself, or with several processes DDP around it.

        Parameters and buffers become rank zero's. To be called anew when parameters have been replaced; the module
        returned before must not be used any more. sync_norm: batch norms see the batches of all processes.
        """
        if self.count == 1:
            return model
        if sync_norm:
            synchronize_norms(model, self.reduction)
        device = next(model.parameters()).device
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            replica = nn.parallel.DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                process_group=self.reduction,
                broadcast_buffers=False,  # `average_statistics` keeps them alike; torch 2.11 has no newer name for it
            )
        if device.type == "cpu":
            replica.register_comm_hook(self.reduction, _mean_in_order)
        return replica

    @torch.no_grad()
    def average_statistics(self, model: nn.Module) -> None:
        """Make the running statistics of every batch norm their mean over the processes, in place.

        Each normalises with the statistics of its own share of the batch; synchronised ones are alike already.
        """
        if self.count == 1:
            return
        statistics = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, SyncNorm)
            for buffer in module.buffers(recurse=False)
            if buffer.is_floating_point() and buffer.dim()
        ]
        if statistics:
            flat = torch.cat(statistics)
            dist.all_reduce(flat, group=self.reduction)
            parts = (flat / self.count).split([len(buffer) for buffer in statistics])
            torch._foreach_copy_(statistics, list(parts))

    def agree(self, tensor: Tensor) -> Tensor:
        """Return rank zero's tensor, which has this one's shape and type."""
        if self.count == 1:
            return tensor
        sent = _sendable(tensor)
        dist.broadcast(sent, 0, group=self.control)
        return sent.to(tensor)

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes, the same bits on each; exact for integers."""
        if self.count == 1:
            return tensor
        sent = _sendable(tensor)
        dist.all_reduce(sent, group=self.control)
        return sent.to(tensor.device)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any process."""
        return bool(self.sum(torch.tensor(int(flag))))

    def seed(self, seed: int, step: int) -> None:
        """Give this process the random numbers of a step (dropout), which follow from seed, step and rank alone."""
        mixed = np.random.SeedSequence(seed, spawn_key=(step, self.rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]))

    @contextmanager
    def guard(self, remedy: str) -> Iterator[None]:
        """Raise LostProcessError, with the remedy, where what is inside finds that another process has gone."""
        try:
            yield
        except LostProcessError as error:
            raise LostProcessError(error.reason, remedy) from None
        except RuntimeError as error:
            if self.count == 1 or not _is_of_communication(error):
                raise
            atexit.unregister(_leave)  # it would wait for the others
            # Without the place in gloo's sources, and without its advice.
            reason = re.sub(r"\[/\S+\] ?", "", " ".join(str(error).split())).partition(". ")[0][:200]
            raise LostProcessError(
                f"Process {self.rank} of 0..{self.count - 1} lost another ({reason})", remedy
            ) from None

    @contextmanager
    def sharing_errors(self, *, is_patient: bool = True) -> Iterator[None]:
        """Raise on all processes what the first of them that fails raises inside, so that none waits for it in vain.

        All processes must come here, and leave together. is_patient: one may be busy inside for long.
        """
        failure = None
        try:
            yield
        except LostProcessError:
            raise
        except HrnasError as error:
            failure = error
        if self.count > 1:
            with self.guard("All are needed; start them again."):
                failure = self._first_failure(failure, None if is_patient else self.control)
        if failure is not None:
            raise failure

    def shared(self, items: Iterator[Any], *, is_patient: bool = True) -> Iterator[Any]:
        """Yield the items; an error that one process meets while it reads them is raised on all.

        All processes must have as many. is_patient: as for `sharing_errors`, for each item.
        """
        if self.count == 1:
            yield from items
            return
        while True:
            with self.sharing_errors(is_patient=is_patient):
                item = next(items, None)
            if item is None:
                return
            yield item

    def _first_failure(self, failure: HrnasError | None, group: Any) -> HrnasError | None:
        kinds = torch.zeros(self.count, dtype=torch.int64)
        text = b"" if failure is None else str(failure).encode()
        known = [HrnasError, *_subclasses(HrnasError)]
        if failure is not None:
            kinds[self.rank] = 1 + known.index(type(failure))
        lengths = torch.zeros(self.count, dtype=torch.int64)
        lengths[self.rank] = len(text)
        both = torch.stack([kinds, lengths])
        dist.all_reduce(both, group=group)
        failed = both[0].nonzero().flatten().tolist()
        if not failed:
            return None
        first = failed[0]
        message = torch.zeros(int(both[1, first]), dtype=torch.uint8)
        if self.rank == first:
            message.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(message, first, group=group)
        if failure is not None and self.rank == first:
            return failure
        kind = known[int(both[0, first]) - 1]
        told = kind.__new__(kind)
        Exception.__init__(told, bytes(message.tolist()).decode())
        return told


ALONE: Final = Processes()


def join_processes(device: torch.device | None = None) -> Processes:
    """Return the processes that torchrun started with this one, connected; ALONE where it started no others.

    device: of this process; without one the processes can talk but not train. All must ask for theirs in the same
    order; groups are made at the first call for a device and kept.
    Raises LostProcessError when they do not come together.
    """
    if not is_launched():
        return ALONE
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    processes = Processes(rank=rank, count=count, local_rank=local_rank())
    if count == 1:
        return processes
    with processes.guard("All are needed; start them again."):
        if not dist.is_initialized():
            store = meet(next(rendezvous("env://", timeout=PATIENCE))[0], rank, count)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=PATIENCE)
            atexit.register(_leave)
        if device is None:
            return processes
        control, reduction = _groups(device)
    return replace(processes, reduction=reduction, control=control)


@cache
def _groups(device: torch.device) -> tuple[Any, Any]:
    """Return the groups `control` and `reduction`; a run opens a session for each network it finishes."""
    control = dist.new_group(backend="gloo", timeout=TIMEOUT)
    reduction = control
    if device.type == "cuda":
        torch.cuda.set_device(device)
        reduction = dist.new_group(backend="nccl", timeout=TIMEOUT)
    return control, reduction


def is_launched() -> bool:
    """Return whether torchrun, or something that sets what it sets, started this process."""
    return all(name in os.environ for name in _LAUNCHED)


def local_rank() -> int:
    """Return this process's number among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_launched() else 0


def launch() -> tuple[str, int] | None:
    """Return the name of torchrun's launch and how often it has restarted the processes; None without torchrun.

    The name stays over restarts.
    """
    if not is_launched() or "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    name = os.environ["TORCHELASTIC_RUN_ID"]
    if name == "none":  # nobody named it: torchrun's own process then stands for it
        name = f"{os.uname().nodename}:{os.getppid()}"
    return name, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def check_shares(batch_size: int, count: int, accumulate: int) -> None:
    """Raise InputError unless a batch can be dealt out evenly to `count` processes, in `accumulate` parts on each."""
    parts = count * accumulate
    if batch_size % parts:
        what = " and ".join(
            text
            for text, number in ((f"{count} processes", count), (f"{accumulate} micro-batches on each", accumulate))
            if number > 1
        )
        lower, upper = batch_size // parts * parts, -(-batch_size // parts) * parts
        raise InputError(
            f"Batch size is {batch_size}, over all processes; it cannot be dealt out evenly to {what}. "
            f"Set batch_size to {f'{lower} or ' if lower else ''}{upper}."
        )


def _mean_in_order(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Return the future mean of a bucket of gradients over the processes, summed in the order of their ranks.

    gloo's own sum takes an order that depends on a number's place in the bucket, and DDP moves gradients about after
    its first step: a resumed run of three processes would not have the bits of the run that never stopped.
    """
    own = bucket.buffer()
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    future = dist.all_gather(gathered, own, group=group, async_op=True).get_future()

    def mean(_: Any) -> Tensor:
        total, *others = gathered
        for other in others:
            total += other
        return total.div_(len(gathered))

    return future.then(mean)


def meet(store: dist.Store, rank: int, count: int, *, patience: timedelta = PATIENCE) -> dist.Store:
    """Return the part of the store that belongs to these very processes, once all of them are here.

    Raises torch's DistError when they are not within `patience`.

    torchrun's store outlives a restart, and with it the addresses of the processes that are gone. How often a process
    was restarted differs between machines, so no number that torchrun gives tells the attempts apart: rank zero
    draws a name for this one, and greets everybody with it until everybody has it.
    """
    own = uuid.uuid4().hex
    deadline = time.monotonic() + patience.total_seconds()
    if rank == 0:
        missing = set(range(1, count))
        while missing:
            for other in sorted(missing):
                if store.check([f"hrnas/{own}/{other}"]):
                    missing.remove(other)
                elif store.check([f"hrnas/hello/{other}"]):
                    store.set(f"hrnas/welcome/{other}", f"{store.get(f'hrnas/hello/{other}').decode()} {own}")
            _wait(deadline, f"{len(missing)} of {count}")
        return dist.PrefixStore(f"hrnas/{own}", store)
    store.set(f"hrnas/hello/{rank}", own)
    while True:
        if store.check([f"hrnas/welcome/{rank}"]):
            greeted, name = store.get(f"hrnas/welcome/{rank}").decode().split()
            if greeted == own:  # and not the process of this rank before a restart
                store.set(f"hrnas/{name}/{rank}", "here")
                return dist.PrefixStore(f"hrnas/{name}", store)
        _wait(deadline, "rank zero")


def _wait(deadline: float, whom: str) -> None:
    if time.monotonic() > deadline:
        raise dist.DistError(f"no sign of {whom}")
    time.sleep(0.02)


def _leave() -> None:
    if dist.is_initialized():
        _groups.cache_clear()
        dist.destroy_process_group()


def _sendable(tensor: Tensor) -> Tensor:
    """Return a copy that gloo can send."""
    dtype = torch.uint8 if tensor.dtype == torch.bool else tensor.dtype
    return tensor.detach().to("cpu", dtype, copy=True).contiguous()


def _is_of_communication(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors, which name its source files.
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _subclasses(kind: type[HrnasError]) -> list[type[HrnasError]]:
    found: list[type[HrnasError]] = []
    for below in kind.__subclasses__():
        found += [below, *_subclasses(below)]
    return found
