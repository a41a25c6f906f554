"""Values read from JSON, checked: Python takes true for 1, and a JSON text may hold any type, and NaN."""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, TypeGuard, TypeVar, get_args, get_origin

T = TypeVar("T")

# What a 64-bit integer holds, and so numpy.
_INTEGERS = range(-(2**63), 2**63)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether it is an integer, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is an integer or a float, NaN and the infinities included."""
    return is_integer(value) or isinstance(value, float)


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether it is a number that a float can hold."""
    # Not `math.isfinite`, which overflows on an integer that no float holds.
    return is_number(value) and abs(value) <= sys.float_info.max


def from_json(kind: type[T], record: Mapping[str, Any]) -> T:
    """A dataclass from a JSON object, each field checked against its annotation.

    Annotations may be str, bool, int, float, tuples, dicts with text as keys, and unions of these with None.

    Raises:
        ValueError: a field is unknown, missing or of another type; the message names it.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := record.keys() - known.keys():
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    values = {}
    for name, field in known.items():
        if name not in record:
            if field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f'needs "{name}"')
            continue
        try:
            values[name] = _convert(field.type, record[name])
        except TypeError:
            raise ValueError(f'"{name}" must be {_describe(field.type)}, got {record[name]!r:.40}') from None
    return kind(**values)


def _convert(annotation: Any, value: Any) -> Any:
    """The value as its annotation has it; raises TypeError if it is no such value."""
    if annotation is float and is_finite(value):
        return float(value)
    if annotation is int and is_integer(value) and value in _INTEGERS:
        return value
    if annotation is Any or (annotation in (str, bool) and isinstance(value, annotation)):
        return value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return None if value is None else _convert(_without_none(annotation), value)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], item) for item in value)
        if len(arguments) == len(value):
            return tuple(map(_convert, arguments, value))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item) for key, item in value.items()}
    raise TypeError


def _without_none(annotation: Any) -> Any:
    (other,) = (argument for argument in get_args(annotation) if argument is not NoneType)
    return other


def _describe(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return f"{_describe(_without_none(annotation))} or null"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each {_describe(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_describe, arguments))}]"
    if origin is dict:
        return "an object" if arguments[1] is Any else f"an object, each value {_describe(arguments[1])}"
    return {str: "text", bool: "true or false", int: "an integer", float: "a finite number"}[annotation]
