"""Prompts to token ids, at a cost bounded by what the ranker keeps of a prompt, not by its size."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

# English runs at about 4 characters a token and code at 3, so this keeps several times what is needed. Text
# beyond it (long runs of blanks) loses tokens that the ranker would have seen; it is scored all the same.
CHARACTERS_PER_TOKEN = 16


class PromptTokenizer:
    """Tokenises prompts as the ranker was trained to see them.

    Args:
        path: a `tokenizer.json`.
        max_length: longest result in tokens, special tokens included.
        truncation_side: "left" keeps the end of a longer prompt, "right" its beginning.

    Raises:
        ValueError: the file is unreadable, or `max_length` leaves no room beside the special tokens.
    """

    def __init__(self, path: Path, *, max_length: int, truncation_side: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"{path.name} cannot be loaded ({error})") from error
        # A tokenizer.json may carry the settings of its training; ours are the manifest's.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._side = truncation_side
        self._room = max_length - self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._max_characters = max_length * CHARACTERS_PER_TOKEN
        if self._room < 1:
            raise ValueError(f"max_length {max_length} leaves no room beside the special tokens")

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, none longer than `max_length`; a prompt without any token gives []."""
        # The batch call, also for one prompt: unlike `encode` it releases the GIL.
        encodings = self._tokenizer.encode_batch_fast(
            [self._window(prompt) for prompt in prompts], add_special_tokens=False
        )
        ids = []
        for encoding in encodings:
            # Truncated before post-processing, so that special tokens survive on either side.
            encoding.truncate(self._room, direction=self._side)
            ids.append(self._tokenizer.post_process(encoding).ids)
        return ids

    def _window(self, prompt: str) -> str:
        if len(prompt) <= self._max_characters:
            return prompt
        return prompt[-self._max_characters :] if self._side == "left" else prompt[: self._max_characters]
