"""Free memory as the system's files say it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from hrnas.engine.free_memory import free_memory

GIB = 2**30
MEMINFO = f"MemTotal: 33554432 kB\nMemFree: 1024 kB\nMemAvailable:    {8 * GIB // 1024} kB\n"
V2 = "0::/app.slice/job\n"
V1 = "11:cpu,cpuacct:/job\n4:memory:/job\n0::/\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * GIB),
        ({"proc/self/cgroup": V2}, 8 * GIB),
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/app.slice/job/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/app.slice/job/memory.current": f"{3 * GIB}\n",
                "sys/fs/cgroup/app.slice/job/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file 7\n",
            },
            2 * GIB,
        ),
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/app.slice/job/memory.max": "max\n",
                "sys/fs/cgroup/app.slice/job/memory.current": f"{3 * GIB}\n",
                "sys/fs/cgroup/app.slice/memory.max": f"{6 * GIB}\n",
                "sys/fs/cgroup/app.slice/memory.current": f"{5 * GIB}\n",
            },
            GIB,
        ),
        (  # inside a container: the path is the host's, the limit is at the top
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
                "sys/fs/cgroup/memory/memory.stat": "inactive_file 9\ntotal_inactive_file 1024\n",
            },
            2 * GIB + 1024,
        ),
        (  # no limit
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GIB}\n",
            },
            8 * GIB,
        ),
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/app.slice/job/memory.max": f"{GIB}\n",
                "sys/fs/cgroup/app.slice/job/memory.current": f"{2 * GIB}\n",
            },
            0,
        ),
    ],
    ids=["no-groups", "no-limit-files", "v2", "group-above", "v1-container", "v1-unlimited", "over-the-limit"],
)
def test_the_smaller_of_the_machine_and_its_groups(files: Mapping[str, str], expected: int, tmp_path: Path) -> None:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(torch.device("cpu"), root=tmp_path) == expected


def test_a_system_that_does_not_say() -> None:
    assert free_memory(torch.device("cpu"), root=Path("/nowhere")) is None
    assert free_memory(torch.device("meta")) is None
