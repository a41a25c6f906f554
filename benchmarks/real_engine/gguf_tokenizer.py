"""A tokenizer from what a GGUF file says of it.

transformers converts a GGUF tokenizer of the kind "gpt2" into one that splits text otherwise than the model
was trained on, and the answers loop. Byte-level BPE with digits one by one is what SmolLM2 was trained with.
"""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# `tokenizer.ggml.token_type` of a token that stands for no text.
CONTROL = 3


def byte_level_bpe(tokens: Sequence[str], merges: Sequence[str], token_types: Sequence[int]) -> Tokenizer:
    """The tokenizer of the fields `tokenizer.ggml.tokens`, `merges` and `token_type`.

    Args:
        tokens: in the order of their ids, in byte-level characters.
        merges: "left right", the first applied first.
        token_types: of each token.

    Raises:
        ValueError: there are not as many types as tokens, or a merge is not of two tokens.
    """
    if len(tokens) != len(token_types):
        raise ValueError(f"{len(tokens)} tokens and {len(token_types)} types: one each")
    pairs = []
    for merge in merges:
        left, separator, right = merge.partition(" ")
        if not (left and separator and right) or " " in right:
            raise ValueError(f"merge {merge!r} is not of two tokens")
        pairs.append((left, right))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, token_types, strict=True)
            if kind == CONTROL
        ]
    )
    return tokenizer
