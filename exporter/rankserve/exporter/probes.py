"""Scores of fixed prompts, recorded in the version: every machine can check that it reproduces them."""

from tokenizers import Tokenizer

from rankserve.exporter.session import GraphScorer
from rankserve.exporter.source import RankerSource
from rankserve.exporter.tokenization import encode
from rankserve.records.ranker_version import Probe

# Made up: a version must not carry its users' prompts. Long, short, code, other scripts, odd spacing.
PROMPTS = (
    "Yes or no: is seven a prime number?",
    "Translate 'good morning' to Spanish.",
    "Write a detailed essay on the history of the steam engine, with at least ten sections.",
    "List the planets of the solar system.",
    "def fibonacci(n):\n    # complete this function and explain each line\n",
    "Erkläre in drei Sätzen, warum der Himmel blau ist.",
    "用一句话解释什么是光合作用。",
    "  Summarise:\t" + "the quick brown fox jumps over the lazy dog and runs on through the wood, " * 40,
)


def record_probes(scorer: GraphScorer, tokenizer: Tokenizer, source: RankerSource) -> tuple[Probe, ...]:
    """The probe prompts with the scores that the published graph gives each of them alone.

    Prompts in which the tokenizer finds no token, or only its special ones, are left out.
    """
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    rows = encode(tokenizer, source, PROMPTS)
    known = [index for index, row in enumerate(rows) if len(row) > special]
    scores = scorer.score_in_batches([rows[index] for index in known], [[at] for at in range(len(known))])
    return tuple(Probe(PROMPTS[index], float(score)) for index, score in zip(known, scores, strict=True))
