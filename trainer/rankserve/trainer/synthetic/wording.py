"""How one training prompt is worded: frames, layouts, places for a wish, and the slips of hasty writers.

Drawn from parts rather than from whole templates, so that a ranker has to read the words which tell the
length (task, number, size) wherever they stand.
"""

import random

from rankserve.trainer.synthetic.tasks import Task
from rankserve.trainer.synthetic.templates import (
    ACTION_FRAMES,
    CLOSERS,
    OPENERS,
    PHRASE_FRAMES,
    TEXT_JOINS,
    TEXT_LABELS,
    TEXT_NAMES,
    TEXT_NAMES_BEFORE,
)

_TEMPLATE_SHARE = 0.3
_PHRASE_SHARE = 0.5
_PASSAGE_FIRST_SHARE = 0.25
_LABELLED_SHARE = 0.15
_WISH_FIRST_SHARE = 0.15
_WISH_APART_SHARE = 0.25
_OPENER_SHARE = 0.25
_CLOSER_SHARE = 0.2


def training_template(task: Task, rng: random.Random) -> str:
    """A template of the task, with its slots still to be filled."""
    if rng.random() < _TEMPLATE_SHARE:
        return _with_passage(rng.choice(task.templates), rng)
    if task.phrases and rng.random() < _PHRASE_SHARE:
        return rng.choice(PHRASE_FRAMES).replace("{}", rng.choice(task.phrases))
    return _with_passage(rng.choice(ACTION_FRAMES).replace("{}", rng.choice(task.actions)), rng)


def with_wish(text: str, clause: str, rng: random.Random) -> str:
    """The text with the wish for a size, behind it, before it or in a sentence of its own."""
    place = rng.random()
    if place < _WISH_FIRST_SHARE:
        return f"{_capital(clause)}{rng.choice((', ', ': '))}{_small(text)}"
    if place < _WISH_FIRST_SHARE + _WISH_APART_SHARE:
        lead = rng.choice(("Answer", "Do it", "Do so", "Please do this", "Respond", "Write", "Length:"))
        return f"{text} {lead} {clause}."
    end = text[-1] if text[-1] in ".?!" else ""
    return f"{text.rstrip('.?!')} {clause}{end}"


def with_surroundings(text: str, rng: random.Random) -> str:
    """The text as somebody would send it: perhaps greeted, thanked for, in lower case, unpunctuated."""
    text = _capital(text)
    if rng.random() < _OPENER_SHARE:
        text = f"{rng.choice(OPENERS)} {text if rng.random() < 0.8 else _small(text)}"
    if rng.random() < _CLOSER_SHARE:
        text = f"{text} {rng.choice(CLOSERS)}"
    slip = rng.random()
    if slip < 0.06:
        return text.lower()
    if slip < 0.12:
        return text.rstrip(".?!")
    if slip < 0.15:
        return text.lower().rstrip(".?!")
    if slip < 0.18:
        return _with_typo(text, rng)
    return text


def _with_passage(template: str, rng: random.Random) -> str:
    """Puts ``{passage}`` where a template only names a text: behind it, before it, or as a labelled input."""
    if "{text}" not in template:
        return template
    layout = rng.random()
    if layout < _PASSAGE_FIRST_SHARE:
        return "{passage}\n\n" + _capital(template.replace("{text}", rng.choice(TEXT_NAMES_BEFORE)))
    template = _capital(template.replace("{text}", rng.choice(TEXT_NAMES)))
    if layout < _PASSAGE_FIRST_SHARE + _LABELLED_SHARE:
        instruction, given = rng.choice(TEXT_LABELS)
        return f"{instruction}: {template}\n{given}: {{passage}}"
    if template[-1] in "?!":
        return template + rng.choice(("\n\n{passage}", "\n{passage}", " {passage}"))
    return template.rstrip(".") + rng.choice(TEXT_JOINS).replace("{}", "{passage}")


def _with_typo(text: str, rng: random.Random) -> str:
    """Two neighbouring characters swapped."""
    i = rng.randrange(len(text) - 1) if len(text) > 1 else 0
    return text[:i] + text[i + 1 : i + 2] + text[i : i + 1] + text[i + 2 :]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _small(text: str) -> str:
    """Its first letter in lower case, unless the first word is I, a name or an abbreviation."""
    return text if text[:2] in ("I ", "I'") or text[1:2].isupper() else text[0].lower() + text[1:]
