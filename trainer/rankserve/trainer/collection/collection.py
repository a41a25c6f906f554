"""A collection: the prompts, what is recorded of them, what is left to ask, and the file that comes of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.collection.log import SampleLog, log_path
from rankserve.trainer.collection.log_lines import Recorded
from rankserve.trainer.collection.output import check_output, length_record, write_output
from rankserve.trainer.collection.prompts import Prompt
from rankserve.trainer.collection.sampling import Api, Sampling


@dataclass(slots=True, frozen=True)
class Tally:
    """How far a collection is.

    Attributes:
        prompts: all of them.
        complete_prompts: with every sample.
        refused_prompts: that the endpoint will not answer.
        samples: recorded.
        censored_samples: of these, cut at the cap.
        samples_left: still to ask.
        input_tokens: of all recorded requests, where the endpoint said.
        output_tokens: of all recorded answers.
    """

    prompts: int
    complete_prompts: int
    refused_prompts: int
    samples: int
    censored_samples: int
    samples_left: int
    input_tokens: int
    output_tokens: int

    @property
    def is_complete(self) -> bool:
        return self.samples_left == 0


class Collection:
    """Prompts, their settings and their log. Close it, or use it as a context manager.

    Args:
        prompts: with distinct ids.
        sampling: how answers are drawn.
        samples: answers to collect for each prompt.
        output: the file to write; its log is beside it.

    Raises:
        CollectionError: the log or the output file is another collection's, or a prompt cannot be sent so.
        RecordError: a line of the log is damaged.
        OSError: the log cannot be written.
        ModuleNotFoundError: Parquet, and pyarrow is not installed.
    """

    def __init__(self, prompts: Sequence[Prompt], sampling: Sampling, samples: int, output: Path) -> None:
        check_output(output)
        if sampling.api is Api.COMPLETIONS:
            _check_single_turns(prompts)
        path = log_path(output)
        if output.exists() and not path.exists():
            raise CollectionError(
                f"{output} is there, but not {path.name}, which would say what is in it: move it, or use "
                f"another --output"
            )
        self.prompts = prompts
        self.sampling = sampling
        self.samples = samples
        self.output = output
        self.log = SampleLog(path, sampling.comparable())
        try:
            self.recorded.check(prompts, path)
        except CollectionError:
            self.log.close()
            raise
        # As the log was found: what this run sends is in it too, later.
        self._unanswered = frozenset(self.recorded.unanswered)

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    @property
    def recorded(self) -> Recorded:
        return self.log.recorded

    def pending(
        self, prompts: Sequence[Prompt] | None = None, samples: int | None = None
    ) -> Iterator[tuple[Prompt, int]]:
        """(prompt, sample) still to ask, all samples of a prompt together, which suits prefix caches."""
        for prompt in self.prompts if prompts is None else prompts:
            for sample in range(self.samples if samples is None else samples):
                if not self.recorded.is_answered(prompt, sample) and not self.recorded.refusal(prompt):
                    yield prompt, sample

    def asked_again(self, pending: Iterable[tuple[Prompt, int]]) -> int:
        """How many of these an earlier run had sent: it ended before their answers came."""
        return sum((prompt.id, sample) in self._unanswered for prompt, sample in pending)

    def tally(self) -> Tally:
        answers = [self.recorded.answers(prompt, self.samples) for prompt in self.prompts]
        return Tally(
            prompts=len(self.prompts),
            complete_prompts=sum(len(each) == self.samples for each in answers),
            refused_prompts=sum(bool(self.recorded.refusal(prompt)) for prompt in self.prompts),
            samples=sum(map(len, answers)),
            censored_samples=sum(answer.censored for each in answers for answer in each),
            samples_left=sum(1 for _ in self.pending()),
            input_tokens=sum(answer.input_tokens or 0 for each in answers for answer in each),
            output_tokens=sum(answer.output_tokens for each in answers for answer in each),
        )

    def refusals(self) -> list[tuple[str, str]]:
        """(id, reason) of each prompt that the endpoint refuses."""
        found = ((prompt.id, self.recorded.refusal(prompt)) for prompt in self.prompts)
        return [(prompt_id, reason) for prompt_id, reason in found if reason]

    def write(self) -> int:
        """Writes the prompts that have at least one sample to the output file; returns how many.

        None is written, and an older file left alone, where there is not one.
        """
        if not any(self.recorded.answers(prompt, self.samples) for prompt in self.prompts):
            return 0
        records = list(self._records())
        write_output(self.output, records)
        return len(records)

    def _records(self) -> Iterator[dict[str, Any]]:
        for prompt in self.prompts:
            if answers := self.recorded.answers(prompt, self.samples):
                yield length_record(prompt, answers, self.sampling)


def _check_single_turns(prompts: Sequence[Prompt]) -> None:
    for prompt in prompts:
        if len(prompt.messages) > 1:
            raise CollectionError(
                f"prompt {prompt.id!r:.60} is a conversation, which only --chat can send: "
                f"leave --completions out"
            )
