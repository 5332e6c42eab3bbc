"""How much memory a device has left."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch


def free_memory(device: torch.device, *, root: Path = Path("/")) -> int | None:
    """Return the bytes that can still be taken on a device; None where the system does not say.

    On a CPU: what Linux calls available, or what the control groups of the process (a container's limit) leave, if that
    is less. root: where the system's files are.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = re.search(r"MemAvailable:\s*(\d+) kB", _read(root / "proc/meminfo"))
    return min([int(found[1]) * 1024, *_left_by_groups(root)]) if found else None


def _left_by_groups(root: Path) -> Iterator[int]:
    """Yield what each control group that limits this process's memory leaves, of both versions of the interface."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit_name, usage_name, cache_name = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, cache_name = "sys/fs/cgroup/memory", "total_inactive_file"
            limit_name, usage_name = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        top = root / mount
        folder = top / path.lstrip("/")
        # A limit of a group above holds too; inside a container the path may be one that only the host has.
        for group in (folder, *folder.parents):
            if not group.is_relative_to(top):
                break
            limit, usage = _read(group / limit_name).strip(), _read(group / usage_name).strip()
            if limit.isdigit() and usage.isdigit():
                cache = re.search(rf"^{cache_name} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
                yield max(0, int(limit) - int(usage) + (int(cache[1]) if cache else 0))


def _read(file: Path) -> str:
    """Return the text of a file of the system; nothing where there is none."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
