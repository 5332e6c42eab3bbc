"""A search on several machines of a SLURM cluster, by submitit (pip install 'hrnas[slurm]').

    python scripts/slurm.py --nodes 2 --processes 8 --partition gpu --minutes 1440 -- \
        search camvid.yaml --budget macs=1G --run runs/camvid

What follows `--` is the command line of hrnas; it must name the run with --run, on a disk that all machines share.
Each machine runs one torchrun, which starts the processes there. When SLURM takes the machines back, early or at the
end of the time, the run stops with a checkpoint, is queued again and goes on. `--cluster local` runs it here.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import submitit

GRACE = 120
"""Seconds between SLURM's signal and the end of the job: for the checkpoint."""


class Launch:
    """The part of one machine: torchrun on a command line of hrnas; when queued again, on `hrnas resume`.

    is_again: `checkpoint` stopped it before. Without it a run that is there is another's, which hrnas refuses.
    """

    def __init__(self, words: list[str], *, run: Path, nodes: int, processes: int, is_again: bool = False) -> None:
        self.words, self.run, self.nodes, self.processes, self.is_again = words, run, nodes, processes, is_again
        self.torchrun: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run to the end. Raises CalledProcessError when torchrun fails."""
        job = submitit.JobEnvironment()
        port = 20_000 + int(job.job_id.partition("_")[0]) % 20_000  # another for every job
        host = job.hostnames[0] if self.nodes > 1 else "127.0.0.1"
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        is_again = self.is_again or restarts != "0"  # SLURM also queues a job again whose machine failed
        is_begun = (self.run / "config.yaml").is_file()
        words = ["resume", str(self.run)] if is_again and is_begun else self.words
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", str(self.nodes),
            "--nproc-per-node", str(self.processes), "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{host}:{port}",
            "--rdzv-id", f"{job.job_id}-{restarts}", "--max-restarts", "3",
            "-m", "--", "hrnas", *words,
        ]  # fmt: skip
        # How long torchrun waits for a checkpoint before it kills; one that is older than the variable waits 30 s.
        environment = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE - 20), **os.environ}
        self.torchrun = subprocess.Popen(command, env=environment)
        if code := self.torchrun.wait():
            raise subprocess.CalledProcessError(code, command)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit when the machine is about to be taken away."""
        if self.torchrun is not None:
            self.torchrun.send_signal(signal.SIGTERM)  # all processes stop after the same step and write a checkpoint
            self.torchrun.wait()
        again = Launch(self.words, run=self.run, nodes=self.nodes, processes=self.processes, is_again=True)
        return submitit.helpers.DelayedSubmission(again)


def main() -> None:
    ours, words = sys.argv[1:], []
    if "--" in ours:
        ours, words = ours[: ours.index("--")], ours[ours.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--processes", type=int, default=1, help="processes on each, one a GPU")
    parser.add_argument("--gpus", type=int, help="GPUs on each machine; as many as processes where left out")
    parser.add_argument("--cores", type=int, default=8, help="CPU cores for each process")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--partition")
    parser.add_argument("--logs", type=Path, default=Path("runs/slurm"))
    parser.add_argument("--cluster", default="slurm", help="slurm, or local")
    given = parser.parse_args(ours)
    if "--run" not in words[:-1]:
        parser.error("the command line of hrnas after `--` must name its run with --run, to be found again")
    run = Path(words[words.index("--run") + 1]).resolve()
    executor = submitit.AutoExecutor(folder=given.logs, cluster=given.cluster)
    executor.update_parameters(
        name=run.name,
        nodes=given.nodes,
        tasks_per_node=1,
        gpus_per_node=given.processes if given.gpus is None else given.gpus,
        cpus_per_task=given.cores * given.processes,
        timeout_min=given.minutes,
        **({"slurm_partition": given.partition} if given.partition else {}),
        slurm_signal_delay_s=GRACE,
    )
    job = executor.submit(Launch(words, run=run, nodes=given.nodes, processes=given.processes))
    print(f"job {job.job_id}; its output goes to {job.paths.stdout}")
    if given.cluster == "local":
        job.result()
        print(f"finished: {run}")


if __name__ == "__main__":
    main()
