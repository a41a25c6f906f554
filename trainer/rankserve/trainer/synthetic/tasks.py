"""The tasks of the synthetic prompts, read from ``tasks.toml``."""

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(slots=True, frozen=True)
class Task:
    """One kind of request. Slots in braces are filled by ``rankserve.trainer.synthetic``.

    Attributes:
        name: becomes the record's category.
        weight: share of the prompts, relative to other tasks.
        median_tokens: median answer length; per item where a template asks for ``{n}`` items, per passage
            token where ``scales_with_passage``.
        templates: whole prompts, for training.
        actions: what to do ("sum up {text}"); each fits into any of ``ACTION_FRAMES``, for training.
        phrases: what to get ("a summary"); each fits into any of ``PHRASE_FRAMES``, for training.
        held_out: whole prompts for everything else, in words of their own.
        sized: whether a wish for a size ("in one sentence") may go with it.
        scales_with_passage: the answer is about as long as the passage times ``median_tokens``.
    """

    name: str
    weight: float
    median_tokens: float
    templates: tuple[str, ...]
    actions: tuple[str, ...]
    held_out: tuple[str, ...]
    phrases: tuple[str, ...] = ()
    sized: bool = False
    scales_with_passage: bool = False


def _read_tasks() -> tuple[Task, ...]:
    text = resources.files(__package__).joinpath("tasks.toml").read_text(encoding="utf-8")
    return tuple(_task(**table) for table in tomllib.loads(text)["tasks"])


def _task(**table: Any) -> Task:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
    }
    return Task(**fields)


TASKS = _read_tasks()
