"""Generated workloads, for commands that are given no data."""

from rankserve.records.workload import WorkloadRecord
from rankserve.trainer.synthetic import generate


def synthetic_workload(count: int, seed: int) -> tuple[list[WorkloadRecord], str]:
    """Requests that replay generated prompts, worded unlike any of training, and the workload's name."""
    records = [
        WorkloadRecord(
            id=prompt.id,
            prompt=prompt.prompt,
            output_tokens=prompt.output_lengths[-1],
            other_lengths=prompt.output_lengths[:-1],
        )
        for prompt in generate(count, seed, templates="held_out", samples=4)
    ]
    return records, f"synthetic, held-out templates, seed {seed}"
