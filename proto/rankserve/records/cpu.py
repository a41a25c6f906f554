"""The CPU that this process runs on: of what kind it is, and how many of its cores the process may use.

In a container that is fewer than ``os.cpu_count``: its share is set by cgroups, as a quota of CPU time.
"""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
# What decides how fast matrices are multiplied: our name, and the flags of x86 and ARM for it.
_FEATURES = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "AMX": {"amx_tile"},
    "NEON": {"asimd"},
    "dot products": {"asimddp"},
    "i8mm": {"i8mm"},
    "SVE": {"sve"},
}
_HELD_BY = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def available_cores() -> int:
    """The cores that work is worth spreading over: those of the affinity, at most the quota rounded up."""
    quota = cpu_quota()
    cores = _allowed_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Cores' worth of CPU time that the process's cgroups grant, the least of all levels; None if unlimited.

    Args:
        root: where ``/proc`` and ``/sys`` are.
    """
    return min(_quotas(root), default=None)


def describe_cpu(root: Path = _ROOT) -> str:
    """For example "2 cores of AMD EPYC (AVX2; no AVX-512, VNNI, bf16, AMX)", with what holds it to less."""
    model, flags = _cpuinfo(root)
    has = [name for name, marks in _FEATURES.items() if marks & flags]
    x86 = list(_FEATURES)[:5]
    lacks = [name for name in x86 if name not in has] if has[:1] == ["AVX2"] else []
    kind = ", ".join(has) + (f"; no {', '.join(lacks)}" if lacks else "")
    cores, of_machine = _allowed_cores(), os.cpu_count() or 1
    share = f"{cores} of {of_machine}" if cores < of_machine else f"{cores}"
    text = f"{share} {'core' if of_machine == 1 else 'cores'} of {model}" + (f" ({kind})" if kind else "")
    quota = cpu_quota(root)
    held = [f"{name}={os.environ[name]}" for name in _HELD_BY if os.environ.get(name)]
    limits = ([] if quota is None else [f"quota of {quota:g} cores"]) + held
    return ", ".join([text, *limits])


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    for controllers, path in _cgroups(root):
        # Version 2 has one hierarchy, without controllers in its line.
        mounted = root / "sys/fs/cgroup" / controllers
        for folder in _levels(mounted, path):
            if controllers:
                limit, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
            else:
                limit, period = (words := _words(folder / "cpu.max"))[:1], words[1:]
            if limit and period and limit[0] not in ("max", "-1"):
                yield int(limit[0]) / int(period[0])


def _cgroups(root: Path) -> Iterator[tuple[str, str]]:
    """Controllers and path of each cgroup of the process that can limit CPU time."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            yield controllers, path


def _levels(mounted: Path, path: str) -> Iterator[Path]:
    """The cgroup and all above it; within a container the path may be the host's, and the mount its own."""
    names = [name for name in path.split("/") if name not in ("", "..")]
    for depth in range(len(names), -1, -1):
        yield mounted.joinpath(*names[:depth])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _cpuinfo(root: Path) -> tuple[str, set[str]]:
    """Name of the model and flags."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name") or platform.processor() or "CPU", set(flags.split())
