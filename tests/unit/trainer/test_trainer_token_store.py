from pathlib import Path

import numpy as np
import pytest

from rankserve.progress import stage
from rankserve.records.prompts import PromptRecord
from rankserve.trainer.backbones.tokenizers import train_tokenizer
from rankserve.trainer.data.arrow_store import BATCH_ROWS
from rankserve.trainer.data.lists import RankedPrompt
from rankserve.trainer.data.prompt_store import StoredPrompts, write_prompts
from rankserve.trainer.data.token_store import TokenisedPrompts, write_tokens

RECORDS = [
    PromptRecord(f"r{i}", f"say {i}", tuple(range(1, 2 + i % 3)), censored=(i % 2 == 0,) * (1 + i % 3))
    for i in range(BATCH_ROWS + 10)
]


def test_stored_prompts_are_those_asked_for(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.arrow", RECORDS)
    rows = np.array([0, 7, BATCH_ROWS - 1, BATCH_ROWS, BATCH_ROWS + 9])
    stored = StoredPrompts(tmp_path / "p.arrow", rows)
    assert list(stored) == [RECORDS[i] for i in rows]
    assert list(stored.prompts()) == [RECORDS[i].prompt for i in rows]
    assert (stored[1], stored[-1], len(stored)) == (RECORDS[7], RECORDS[-1], 5)
    assert list(stored[1:3]) == [RECORDS[7], RECORDS[BATCH_ROWS - 1]]
    assert stored.sample(9) is stored
    assert list(stored.sample(3).rows) == [rows[0], rows[2], rows[4]]
    assert list(StoredPrompts(tmp_path / "p.arrow", rows[:0])) == []


def test_tokens_lengths_and_censoring_come_back(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([record.prompt for record in RECORDS], 300)
    with stage("tokenising", len(RECORDS), "prompts") as tokenising:
        write_tokens(tmp_path / "t.arrow", RECORDS, tokenizer, 6, tokenising)
    assert tokenising.done == len(RECORDS)
    tokens = TokenisedPrompts(tmp_path / "t.arrow")
    assert len(tokens) == len(RECORDS)
    for i in (0, 1, BATCH_ROWS - 1, BATCH_ROWS, len(RECORDS) - 1):
        record = RECORDS[i]
        expected = tuple(tokenizer(record.prompt, truncation=True, max_length=6)["input_ids"])
        assert tokens[i] == RankedPrompt(expected, record.output_lengths, record.censored)
    with pytest.raises(IndexError):
        tokens[len(RECORDS)]
