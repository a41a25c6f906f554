import math
import random
import re
import statistics
import string
import subprocess
import sys

import numpy as np
import pytest

from rankserve.trainer.evaluation.metrics import ceilings, kendall_tau, lengths_matrix
from rankserve.trainer.synthetic import LONGEST_ANSWER, TemplateSet, generate
from rankserve.trainer.synthetic.tasks import TASKS, Task
from rankserve.trainer.synthetic.templates import (
    ACTION_FRAMES,
    CLOSERS,
    FRAMES_HELD_OUT,
    OPENERS,
    PHRASE_FRAMES,
    SIZES,
)
from rankserve.trainer.synthetic.wording import training_template, with_surroundings, with_wish

both_sets = pytest.mark.parametrize("templates", ["training", "held_out"])


@both_sets
def test_the_same_seed_gives_the_same_records(templates: TemplateSet) -> None:
    records = list(generate(200, 3, templates))
    assert list(generate(200, 3, templates)) == records
    assert list(generate(50, 3, templates)) == records[:50]
    assert list(generate(200, 4, templates)) != records


@both_sets
def test_prompts_are_distinct_and_every_slot_is_filled(templates: TemplateSet) -> None:
    records = list(generate(3000, 0, templates))
    assert len({record.prompt for record in records}) == len({record.id for record in records}) == 3000
    assert not [record.prompt for record in records if re.search(r"[{}]", record.prompt)]
    assert {record.category for record in records} == {task.name for task in TASKS}
    assert all(
        len(record.output_lengths) == 4 and set(record.output_lengths) <= set(range(1, LONGEST_ANSWER + 1))
        for record in records
    )


@both_sets
def test_lengths_are_heavy_tailed_and_samples_agree_as_on_real_data(templates: TemplateSet) -> None:
    lengths = lengths_matrix(list(generate(3000, 1, templates)))
    p50, p99 = np.percentile(lengths, [50, 99])
    assert p99 / p50 > 8
    assert 0.64 < ceilings(lengths)["ceiling_sample"] < 0.72


def test_the_prompt_explains_its_length_in_part() -> None:
    records = list(generate(3000, 1))
    lengths = lengths_matrix(records)
    by_task: dict[str, list[float]] = {}
    for record in records:
        by_task.setdefault(record.category, []).append(math.log(record.mean_length))
    means = {task: statistics.fmean(values) for task, values in by_task.items()}
    scores = [-means[record.category] for record in records]
    assert 0.35 < kendall_tau(scores, lengths[:, 0]) < 0.6
    assert abs(kendall_tau([-len(record.prompt) for record in records], lengths[:, 0])) < 0.2


def training_templates(task: Task) -> set[str]:
    """Those written out, and those that a frame makes of an action or a phrase."""
    made = {frame.replace("{}", action) for frame in ACTION_FRAMES for action in task.actions}
    made |= {frame.replace("{}", phrase) for frame in PHRASE_FRAMES for phrase in task.phrases}
    return made | set(task.templates)


def fixed_words(template: str) -> str:
    """Its words in lower case, unpunctuated, with every slot the same and the place of a passage left out."""
    text = re.sub(r"\s\{passage\}|\{passage\}\s", "", template).replace("{text}", "the text below")
    return " " + " ".join(re.findall(r"\w+", re.sub(r"\{\w+\}", "SLOT", text).lower())) + " "


def test_no_training_template_holds_one_that_is_held_out() -> None:
    for task in TASKS:
        training = "\n".join(fixed_words(template) for template in training_templates(task))
        assert not [template for template in task.held_out if fixed_words(template) in training]


def test_the_sets_share_no_prompt_no_size_and_no_surroundings() -> None:
    assert not {text for size in SIZES for text in size.training} & {
        text for size in SIZES for text in size.held_out
    }
    around = " ".join(FRAMES_HELD_OUT)
    assert not [text for text in OPENERS + CLOSERS if text in around]
    seen = {record.prompt for record in generate(5000, 0, "training")}
    assert not [record.prompt for record in generate(5000, 0, "held_out") if record.prompt in seen]


def test_every_slot_of_a_template_is_known() -> None:
    known = {"topic", "topic2", "topic3", "character", "character2", "place", "language", "code_language"}
    known |= {"code_task", "code_program", "fact", "country", "question", "recipient", "passage", "n"}
    known |= {"a", "b"}
    for task in TASKS:
        for template in (*task.templates, *task.actions, *task.phrases):
            assert {name for _, name, _, _ in string.Formatter().parse(template) if name} <= known | {"text"}
        for template in task.held_out:
            assert {name for _, name, _, _ in string.Formatter().parse(template) if name} <= known


def test_what_tells_the_length_is_in_every_wording() -> None:
    rng = random.Random(0)
    for task in TASKS:
        for _ in range(300):
            template = training_template(task, rng)
            assert "{text}" not in template
            assert ("{passage}" in template) or not task.scales_with_passage
    for _ in range(300):
        text = with_wish("Describe tea.", "in 80 words", rng)
        assert {"describe", "tea", "in", "80", "words"} <= set(re.findall(r"\w+", text.lower()))


def test_surface_noise_does_not_hide_a_wish() -> None:
    """Most prompts stay as they are: only a typo can change a word."""
    rng = random.Random(1)
    texts = [with_surroundings("Name 5 rivers.", rng) for _ in range(2000)]
    intact = [text for text in texts if "name 5 rivers" in text.lower()]
    assert 0.97 < len(intact) / len(texts) < 1
    assert 0.4 < sum(text == "Name 5 rivers." for text in texts) / len(texts) < 0.7


def test_bad_arguments_are_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="count"):
        generate(-1, 0)
    with pytest.raises(ValueError, match="samples"):
        generate(1, 0, samples=0)
    with pytest.raises(ValueError, match="other"):
        generate(1, 0, "other")  # type: ignore[arg-type]


def test_it_needs_the_standard_library_only() -> None:
    script = (
        "import sys; before = set(sys.modules); import rankserve.trainer.synthetic\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["rankserve"]
