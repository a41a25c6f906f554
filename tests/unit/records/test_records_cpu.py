"""How many cores a process may use in containers of both kinds, and how its CPU is described."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from rankserve.records import cpu
from rankserve.records.cpu import available_cores, cpu_quota, describe_cpu

V2, V1 = "0::{}\n", "5:memory:/docker/abc\n4:cpu,cpuacct:{}\n"


def machine(root: Path, cgroup: str, files: Mapping[str, str], cpuinfo: str = "") -> Path:
    for name, text in {"proc/self/cgroup": cgroup, "proc/cpuinfo": cpuinfo, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(folder: str, quota: int) -> dict[str, str]:
    base = f"sys/fs/cgroup/cpu,cpuacct{folder}"
    return {f"{base}/cpu.cfs_quota_us": f"{quota}\n", f"{base}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        (V2.format("/"), {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        (V2.format("/"), {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (V2.format("/"), {}, None),
        (V2.format("/a/b"), {"sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        (
            V2.format("/a/b"),
            {"sys/fs/cgroup/a/b/cpu.max": "400000 100000\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"},
            0.5,
        ),
        (
            V2.format("/a/b"),
            {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"},
            3.0,
        ),
        # A container that sees the host's path, but its own mount.
        (V2.format("/docker/abc"), {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1.0),
        (V2.format("/../../other"), {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1.0),
        (V1.format("/docker/abc"), v1("/docker/abc", 250000), 2.5),
        (V1.format("/docker/abc"), v1("/docker/abc", -1), None),
        (V1.format("/docker/abc"), v1("", 100000), 1.0),
        (V1.format("/docker/abc"), {**v1("/docker/abc", 400000), **v1("/docker", 150000)}, 1.5),
    ],
)
def test_the_least_quota_of_all_levels_holds(
    tmp_path: Path, cgroup: str, files: Mapping[str, str], quota: float | None
) -> None:
    assert cpu_quota(machine(tmp_path, cgroup, files)) == quota


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [(8, None, 8), (8, 2.0, 2), (8, 1.5, 2), (8, 0.25, 1), (2, 6.0, 2)],
)
def test_cores_are_those_of_the_affinity_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr(cpu, "cpu_quota", lambda: quota)
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("cpuinfo", "kind"),
    [
        (
            "model name\t: AMD EPYC\nflags\t\t: fma avx2 sha_ni\n",
            "AMD EPYC (AVX2; no AVX-512, VNNI, bf16, AMX)",
        ),
        (
            "model name\t: Xeon\nflags\t\t: avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile\n",
            "Xeon (AVX2, AVX-512, VNNI, bf16, AMX)",
        ),
        ("model name\t: Core\nflags\t\t: avx2 avx_vnni\n", "Core (AVX2, VNNI; no AVX-512, bf16, AMX)"),
        (
            "model name\t: Neoverse\nFeatures\t: asimd asimddp i8mm bf16\n",
            "Neoverse (bf16, NEON, dot products, i8mm)",
        ),
    ],
)
def test_the_features_that_matter_are_named(tmp_path: Path, cpuinfo: str, kind: str) -> None:
    assert f" of {kind}" in describe_cpu(machine(tmp_path, V2.format("/"), {}, cpuinfo))


def test_what_holds_the_cpu_to_less_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    root = machine(
        tmp_path,
        V2.format("/"),
        {"sys/fs/cgroup/cpu.max": "150000 100000\n"},
        "model name: Xeon\nflags: avx2 avx512f\n",
    )
    assert describe_cpu(root) == (
        "1 of 8 cores of Xeon (AVX2, AVX-512; no VNNI, bf16, AMX), quota of 1.5 cores, "
        "ONEDNN_MAX_CPU_ISA=AVX2"
    )
