"""What a run is made on and with, for its record."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from rankserve.records.cpu import describe_cpu

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
    """For example "Linux x86_64, 2 cores of AMD EPYC (AVX2; no AVX-512, VNNI, bf16, AMX), 23 GiB"."""
    parts = [f"{platform.system()} {platform.machine()}"]
    parts.append(describe_cpu())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts.append(f"{memory:.0f} GiB")
    return ", ".join(parts)
