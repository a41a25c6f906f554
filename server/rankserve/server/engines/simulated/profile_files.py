"""Profiles as TOML files: step times are four coefficients in it, or tables in an NPZ file that it names."""

import json
import math
import tomllib
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from rankserve.server.engines.simulated.linear_fit import LinearFit
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.engines.simulated.step_time import StepTimes

_COEFFICIENTS = tuple(field.name for field in fields(LinearFit))
_CURVES = (("tokens_axis", "tokens_ms"), ("sampled_axis", "sampled_ms"))
_NUMBERS = ("straggler_ms", "prefill_pair_ms", "overhead_ms")
_TABLES = tuple(name for name in StepTimes._fields if name not in _NUMBERS)


class ProfileError(ValueError):
    """A profile's file cannot be used; the text says which and why."""


def read_profile(path: Path) -> Profile:
    """Raises ProfileError: it cannot be used."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"profile {path} cannot be read: {error}") from error
    return make_profile(path.stem, values, path)


def write_profile(path: Path, profile: Profile, fit: LinearFit | None = None) -> list[Path]:
    """Writes a profile as TOML, and its tables beside it. Returns the files written.

    Args:
        path: the ``.toml`` file.
        profile: what to write.
        fit: what its step times are, if they are a linear fit; it goes into the TOML itself.

    Raises:
        OSError: the folder cannot be written.
    """
    times = profile.step_times
    written = [path]
    lines: list[str] = []
    if fit is not None:
        lines += [f"{name} = {getattr(fit, name)!r}" for name in _COEFFICIENTS]
    else:
        tables = path.with_suffix(".npz")
        # Measurements have fewer digits than float32; axes are integers.
        compact = {name: getattr(times, name).astype(np.float32) for name in _TABLES}
        np.savez_compressed(tables, **compact)
        written.append(tables)
        lines.append(f"tables = {json.dumps(tables.name)}")
        lines.append(f"straggler_ms = {times.straggler_ms!r}")
        lines.append(f"prefill_pair_ms = {times.prefill_pair_ms!r}")
    lines.append(f"overhead_ms = {times.overhead_ms!r}")
    for field in fields(Profile):
        value = getattr(profile, field.name)
        if field.name in ("name", "step_times"):
            continue
        lines.append(f"{field.name} = {json.dumps(value)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return written


def make_profile(name: str, values: dict[str, Any], file: Path) -> Profile:
    """The profile that these values of a TOML file describe. Raises ProfileError: they do not."""
    rest = dict(values)
    try:
        _check_types(rest)
        if "tables" in rest:
            tables = _read_tables(file.parent / rest.pop("tables"))
            times = StepTimes(
                **tables,
                straggler_ms=_ms(rest, "straggler_ms"),
                prefill_pair_ms=_ms(rest, "prefill_pair_ms"),
                overhead_ms=_ms(rest, "overhead_ms"),
            )
        else:
            overhead_ms = _ms(rest, "overhead_ms")
            fit = LinearFit(**{key: float(rest.pop(key)) for key in _COEFFICIENTS})
            times = fit.step_times()._replace(overhead_ms=overhead_ms)
        return Profile(name=name, step_times=times, **rest)
    except KeyError as error:
        raise ProfileError(
            f"profile {name} in {file}: {error} is missing; state it, or name a file of tables"
        ) from error
    except (TypeError, ValueError) as error:
        raise ProfileError(f"profile {name} in {file}: {error}") from error


def _check_types(values: dict[str, Any]) -> None:
    """Turns whole numbers into the fractions that they stand for; raises ValueError for another type."""
    for field in fields(Profile):
        value = values.get(field.name)
        if field.type is float and type(value) is int:
            values[field.name] = float(value)
        elif value is not None and type(value) is not field.type:
            kind = getattr(field.type, "__name__", field.type)
            raise ValueError(f"{field.name} must be of type {kind}, got {value!r}")


def _ms(values: dict[str, Any], name: str) -> float:
    value = float(values.pop(name, 0.0))
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of at least 0, got {value}")
    return value


def _read_tables(path: Path) -> dict[str, Any]:
    try:
        with np.load(path) as file:
            tables = {name: np.ascontiguousarray(file[name], np.float64) for name in _TABLES}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ProfileError(f"{path} is not a profile's tables ({error}); add the profile again") from error
    shape = tuple(len(tables[axis]) for axis in _TABLES[:4])
    for name in _TABLES:
        if not np.isfinite(tables[name]).all():
            raise ProfileError(f"{path}: {name} holds a value that is not a number; add the profile again")
        if name.endswith("_axis") and (len(tables[name]) < 2 or (np.diff(tables[name]) <= 0).any()):
            raise ProfileError(f"{path}: {name} does not ascend; add the profile again")
    lengths = [len(tables[axis]) == len(tables[curve]) for axis, curve in _CURVES]
    if tables["attention_ms"].shape != shape or not all(lengths):
        raise ProfileError(f"{path}: tables and axes differ in length; add the profile again")
    return tables
