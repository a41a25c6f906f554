"""Synthetic training and demo data: prompts from templates, several sampled output lengths for each.

Standard library only, so that the demo and the load generator can use it without torch.

A length is lognormal in two stages. Its log-median is what the prompt says (task, items or words asked for,
length of the passage to translate) plus a draw per prompt that no reader of the prompt could know; each
sample adds a draw of its own. The spreads are set so that two samples of one prompt agree with Kendall's
tau-b of about 0.68 and the visible part orders a sample with about 0.60, much as on real data.
"""

import math
import random
from collections.abc import Iterator
from typing import Literal

from rankserve.records.prompts import PromptRecord, prompt_id
from rankserve.trainer.synthetic import words
from rankserve.trainer.synthetic.tasks import TASKS, Task
from rankserve.trainer.synthetic.templates import FRAMES_HELD_OUT, SIZES, Size
from rankserve.trainer.synthetic.wording import training_template, with_surroundings, with_wish

TemplateSet = Literal["training", "held_out"]

LONGEST_ANSWER = 2048

_PROMPT_SIGMA = 0.66
_SAMPLE_SIGMA = 0.5
_SIZED_SHARE = 0.45
_TOKENS_PER_WORD = 1.35
_TOPICS = (
    tuple((topic, 0.75) for topic in words.NARROW_TOPICS)
    + tuple((topic, 1.0) for topic in words.COMMON_TOPICS)
    + tuple((topic, 1.35) for topic in words.BROAD_TOPICS)
)
_TOPICS_TRAINING = (
    _TOPICS
    + tuple((topic, 0.75) for topic in words.NARROW_TOPICS_TRAINING)
    + tuple((topic, 1.0) for topic in words.COMMON_TOPICS_TRAINING)
    + tuple((topic, 1.35) for topic in words.BROAD_TOPICS_TRAINING)
)


def generate(
    count: int, seed: int, templates: TemplateSet = "training", samples: int = 4
) -> Iterator[PromptRecord]:
    """Yields distinct prompts with sampled output lengths, the same ones for the same arguments.

    The first records of a longer run are the records of a shorter one. The two sets share no template; a
    record's id is the hash of its prompt and its category is the task.

    Args:
        count: how many prompts.
        seed: of the generator.
        templates: "training", or "held_out" for prompts worded unlike any of training.
        samples: output lengths for each prompt, in tokens, 1 to 2,048.

    Raises:
        ValueError: a negative count, no samples, or another name of templates.
    """
    if count < 0 or samples < 1:
        raise ValueError(f"count must be at least 0 and samples at least 1, got {count} and {samples}")
    if templates not in ("training", "held_out"):
        raise ValueError(f'templates must be "training" or "held_out", got {templates!r}')
    return _generate(count, random.Random(f"{templates}/{seed}"), templates == "held_out", samples)


def _generate(count: int, rng: random.Random, held_out: bool, samples: int) -> Iterator[PromptRecord]:
    weights = [task.weight for task in TASKS]
    seen: set[str] = set()
    while len(seen) < count:
        task = rng.choices(TASKS, weights)[0]
        prompt, median = _prompt(task, rng, held_out)
        log_median = math.log(median) + rng.gauss(0.0, _PROMPT_SIGMA)
        lengths = tuple(_length(log_median + rng.gauss(0.0, _SAMPLE_SIGMA)) for _ in range(samples))
        identifier = prompt_id(prompt)
        if identifier not in seen:
            seen.add(identifier)
            yield PromptRecord(identifier, prompt, lengths, task.name)


def _length(log_tokens: float) -> int:
    return min(LONGEST_ANSWER, max(1, round(math.exp(log_tokens))))


def _prompt(task: Task, rng: random.Random, held_out: bool) -> tuple[str, float]:
    """A prompt and the median output length, in tokens, that its text implies."""
    template = rng.choice(task.held_out) if held_out else training_template(task, rng)
    slots, breadth = _slots(rng, held_out)
    median = task.median_tokens
    if "{n}" in template:
        median *= int(slots["n"])
    if task.scales_with_passage:
        median *= len(slots["passage"].split()) * _TOKENS_PER_WORD
    elif "{topic}" in template:
        median *= breadth
    text = template.format(**slots)
    if task.sized and rng.random() < _SIZED_SHARE:
        text, median = _with_size(text, median, rng.choice(SIZES), rng, held_out)
    if held_out:
        return rng.choice(FRAMES_HELD_OUT).format(text[0].upper() + text[1:]), median
    return with_surroundings(text, rng), median


def _with_size(text: str, median: float, size: Size, rng: random.Random, held_out: bool) -> tuple[str, float]:
    paragraphs, asked_words = rng.randint(2, 6), rng.choice((50, 80, 100, 150, 200, 300, 400, 500, 800))
    clause = rng.choice(size.held_out if held_out else size.training)
    if size.tokens is None:
        median *= size.factor
    else:
        median = size.tokens
        if "{k}" in clause:
            median *= paragraphs
        if "{words}" in clause:
            median *= asked_words
    clause = clause.format(k=paragraphs, words=asked_words)
    if not held_out:
        return with_wish(text, clause, rng), median
    return f"{text.rstrip('.?')} {clause}{text[-1] if text[-1] in '.?' else ''}", median


def _slots(rng: random.Random, held_out: bool) -> tuple[dict[str, str], float]:
    """A value for each slot, and how much the first topic lengthens an answer."""
    (topic, breadth), (topic2, _), (topic3, _) = rng.sample(_TOPICS if held_out else _TOPICS_TRAINING, 3)
    character, character2 = rng.sample(words.CHARACTERS, 2)
    sentences = min(12, 1 + int(rng.expovariate(0.35)))
    slots = {
        "topic": topic,
        "topic2": topic2,
        "topic3": topic3,
        "character": character,
        "character2": character2,
        "place": rng.choice(words.PLACES),
        "language": rng.choice(words.LANGUAGES),
        "code_language": rng.choice(words.CODE_LANGUAGES),
        "code_task": rng.choice(words.CODE_TASKS),
        "code_program": rng.choice(words.CODE_PROGRAMS),
        "fact": rng.choice(words.FACTS),
        "country": rng.choice(words.COUNTRIES),
        "question": rng.choice(words.YES_NO_QUESTIONS),
        "recipient": rng.choice(words.RECIPIENTS),
        "passage": " ".join(rng.sample(words.SENTENCES, sentences)),
        "n": str(rng.choice((2, 3, 3, 4, 5, 5, 5, 6, 7, 8, 10, 10, 15))),
        "a": str(rng.randint(20, 990)),
        "b": str(rng.randint(2, 48)),
    }
    return slots, breadth
