"""What a run is made on and with, for its record."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("rankserve", "grpcio", "protobuf", "onnxruntime", "onnxruntime-gpu")


def package_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python's version, and those of the packages that matter and are installed here."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def describe_machine() -> str:
    """For example "Linux x86_64, 2 x Intel(R) Xeon(R) CPU, 23 GiB"."""
    parts = [f"{platform.system()} {platform.machine()}"]
    parts.append(f"{os.cpu_count()} x {_cpu_model() or 'CPU'}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts.append(f"{memory:.0f} GiB")
    return ", ".join(parts)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
