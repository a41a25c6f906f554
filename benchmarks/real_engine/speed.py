"""How fast the LLM answers with its batch full."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.real_engine.collection import SPLIT, ask, sample
from benchmarks.real_engine.places import Places

from rankserve.records.prompts import read_prompts, split_of
from rankserve.trainer.collection.log import log_path


@dataclass(slots=True, frozen=True)
class Speed:
    """Of all requests together, with so many always on their way."""

    concurrency: int
    answers: int
    output_tokens_per_s: float
    answers_per_s: float


def measure(places: Places, url: str, source: Path, prompts: int, concurrency: int) -> Speed:
    """Asks prompts that are trained on, as many at a time as the batch holds.

    Raises:
        subprocess.CalledProcessError: answers are missing.
        RecordError: the source cannot be used.
        OSError: it cannot be read.
    """
    chosen = sample(
        (record for record in read_prompts(source) if split_of(record.id, SPLIT) == "train"), prompts
    )
    places.output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=places.output, prefix="speed-") as folder:
        output = Path(folder) / "lengths.jsonl.gz"
        ask(output, url, chosen, concurrency=concurrency)
        return speed(log_path(output), concurrency)


def speed(log: Path, concurrency: int) -> Speed:
    """From the log of `rankserve collect`.

    The latencies of all answers add up to the time that it took, as often as there were requests at a time;
    while the last ones end there are fewer, which the sum leaves out.
    """
    answers = [answer for line in log.read_text().splitlines() if "latency_s" in (answer := json.loads(line))]
    elapsed_s = sum(answer["latency_s"] for answer in answers) / concurrency
    return Speed(
        concurrency=concurrency,
        answers=len(answers),
        output_tokens_per_s=sum(answer["output_tokens"] for answer in answers) / elapsed_s,
        answers_per_s=len(answers) / elapsed_s,
    )
