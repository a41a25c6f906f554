"""Output lengths of the LLM's answers to real prompts, with `rankserve collect`.

The prompts are an even sample of a file, in an order that does not depend on how many are taken: asking for
more later keeps what is there. Those of the test split are asked several times, to know how well one answer's
length tells another's; nothing may be tuned on them.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real_engine.command import rankserve
from benchmarks.real_engine.places import Places
from benchmarks.real_engine.server import SERVED_MODEL

from rankserve.records.prompts import PromptRecord, read_prompts, split_of

SPLIT = (0.75, 0.1, 0.15)
TEMPERATURE = 0.7
LENGTH_CAP = 512
HELD_OUT, OTHERS = "held-out", "others"


@dataclass(slots=True, frozen=True)
class Collection:
    """What is asked.

    Attributes:
        source: a file of prompts (`rankserve.records.prompts`); lengths in it are not looked at.
        prompts: how many of them.
        samples: answers to each prompt of the test split; to the others one.
        concurrency: requests at a time.
    """

    source: Path
    prompts: int
    samples: int
    concurrency: int

    def run(self, places: Places, url: str) -> None:
        """Asks what was not answered yet, and writes all lengths.

        Raises:
            subprocess.CalledProcessError: answers are missing; the same again goes on.
            RecordError: the source cannot be used.
            OSError: it cannot be read.
        """
        chosen = sample(read_prompts(self.source), self.prompts)
        held_out = [record for record in chosen if split_of(record.id, SPLIT) == "test"]
        others = [record for record in chosen if split_of(record.id, SPLIT) != "test"]
        for name, records, samples in ((HELD_OUT, held_out, self.samples), (OTHERS, others, 1)):
            ask(_lengths(places, name), url, records, samples=samples, concurrency=self.concurrency)
        join([_lengths(places, name) for name in (HELD_OUT, OTHERS)], places.lengths)


def ask(
    output: Path, url: str, records: Iterable[PromptRecord], *, samples: int = 1, concurrency: int
) -> None:
    """Collects the lengths of answers to prompts, those that are not in the output yet.

    Raises:
        subprocess.CalledProcessError: answers are missing; the same again goes on.
        OSError: the output cannot be written.
    """
    prompts = output.with_name(f"prompts-{output.name.partition('.')[0]}.jsonl")
    prompts.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"id": record.id, "prompt": record.prompt}) + "\n" for record in records)
    prompts.write_text("".join(lines))
    rankserve(
        *("collect", prompts, "--url", url, "--model", SERVED_MODEL, "--output", output),
        *("--samples", samples, "--temperature", TEMPERATURE, "--max-tokens", LENGTH_CAP),
        *("--concurrency", concurrency),
    )


def sample(records: Iterable[PromptRecord], count: int) -> list[PromptRecord]:
    """The first prompts in the order of a hash: a larger sample begins with a smaller one."""
    return sorted(records, key=_place)[:count]


def join(parts: Iterable[Path], whole: Path) -> None:
    """One file of the records of several."""
    partial = whole.with_name(f".{whole.name}")
    with gzip.open(partial, "wt") as output:
        for part in parts:
            with gzip.open(part, "rt") as lines:
                output.writelines(lines)
    partial.replace(whole)


def _lengths(places: Places, name: str) -> Path:
    return places.output / "collected" / f"{name}.jsonl.gz"


def _place(record: PromptRecord) -> bytes:
    # Not the hash that splits them.
    return hashlib.blake2b(record.id.encode(), digest_size=8, person=b"real-engine").digest()
