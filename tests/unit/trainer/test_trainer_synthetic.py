import math
import re
import statistics
import string
import subprocess
import sys

import numpy as np
import pytest

from rankserve.trainer.metrics import ceilings, kendall_tau, lengths_matrix
from rankserve.trainer.synthetic import LONGEST_ANSWER, TemplateSet, generate
from rankserve.trainer.synthetic_tasks import TASKS
from rankserve.trainer.synthetic_templates import REQUESTS, SIZES, Task

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
    """Those written out, and those that a request and a phrase make."""
    made = {request.replace("{}", phrase) for request in REQUESTS for phrase in task.phrases}
    return made | set(task.training)


def test_the_sets_share_no_template() -> None:
    training = {template for task in TASKS for template in training_templates(task)}
    assert not training & {template for task in TASKS for template in task.held_out}
    assert not {text for size in SIZES for text in size.training} & {
        text for size in SIZES for text in size.held_out
    }
    seen = {record.prompt for record in generate(5000, 0, "training")}
    assert not [record.prompt for record in generate(5000, 0, "held_out") if record.prompt in seen]


def test_every_slot_of_a_template_is_known() -> None:
    known = {"topic", "topic2", "topic3", "character", "character2", "place", "language", "code_language"}
    known |= {
        "code_task",
        "code_program",
        "fact",
        "country",
        "question",
        "recipient",
        "passage",
        "n",
        "a",
        "b",
    }
    known |= {"text", "given"}
    for task in TASKS:
        for template in training_templates(task) | set(task.held_out):
            assert {name for _, name, _, _ in string.Formatter().parse(template) if name} <= known


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
