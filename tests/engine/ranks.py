"""Several processes of one run within a test: forked, connected by gloo, each calling one function."""

import multiprocessing
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hrnas.engine.distributed import Processes, join_processes


def run_ranks(count: int, function: Callable[..., Any], *given: Any, may_die: bool = False) -> list[Any]:
    """Return what function(processes, *given) returns on each of `count` processes, tensors as NumPy arrays.

    may_die: None stands for what a process that died would have returned.
    """
    if torch.cuda.is_initialized():
        pytest.skip("forks, which a started CUDA does not survive")
    context = multiprocessing.get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes, started = [], []
    for rank in range(count):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(rank, count, port, there, function, given))
        with warnings.catch_warnings():  # newer Pythons warn of forks beside threads
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        there.close()
        pipes.append(here)
        started.append(process)
    try:
        answers = [_answer(pipe, may_die) for pipe in pipes]
    finally:
        for process in started:
            process.join(5)
            process.kill()
    for kind, answer in answers:
        assert kind == "done", answer
    return [answer for _, answer in answers]


def _answer(pipe: Any, may_die: bool) -> tuple[str, Any]:
    try:
        return pipe.recv() if pipe.poll(60) else ("silent", "a process has not answered for a minute")
    except EOFError:
        return ("done" if may_die else "dead"), None


def _run(rank: int, count: int, port: int, pipe: Any, function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    try:
        processes: Processes = join_processes(torch.device("cpu"))
        pipe.send(("done", _plain(function(processes, *given))))
        dist.barrier()
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
    pipe.close()
    os._exit(0)  # what the test process has registered to happen at its end is not the child's


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
