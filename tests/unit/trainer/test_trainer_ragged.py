"""Prompts one behind the other, without padding, are scored and learned from as padded ones are."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import OPTConfig

from rankserve.trainer.batches import pad
from rankserve.trainer.model import RankerModel
from rankserve.trainer.ragged import Ragged, has_ragged_attention, use_ragged_attention

ROWS = [[5, 6], [7, 3], [8, 9, 10], [4], [4, 5, 6, 7], [11, 12, 13, 14]]


def a_ranker(**changes: object) -> RankerModel:
    torch.manual_seed(0)
    shape = {
        "vocab_size": 32,
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "dropout": 0.0,
    }
    return RankerModel.from_config(OPTConfig(**{**shape, **changes}))  # type: ignore[no-untyped-call]


def scores_and_gradients(
    model: RankerModel, parts: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    states = model.pooled(parts)
    states.pow(2).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return states.detach(), gradients


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize("before", [True, False], ids=["norm before", "norm after"])
@pytest.mark.parametrize("projection", [16, 8], ids=["as wide", "projected"])
def test_states_and_gradients_are_those_of_padded_batches(
    pooling: str, before: bool, projection: int
) -> None:
    model = a_ranker(ranker_pooling=pooling, do_layer_norm_before=before, word_embed_proj_dim=projection)
    parts = [pad(ROWS[:3], 1), pad(ROWS[3:], 1)]
    expected, expected_gradients = scores_and_gradients(model, parts)
    use_ragged_attention(model.classifier)
    assert has_ragged_attention(model.classifier)
    found, gradients = scores_and_gradients(model, parts)
    torch.testing.assert_close(found, expected)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-5, rtol=1e-4)


def test_padded_batches_are_scored_as_before() -> None:
    model = a_ranker().eval()
    expected = model(*pad(ROWS, 1))
    use_ragged_attention(model.classifier)
    torch.testing.assert_close(model(*pad(ROWS, 1)), expected)


def test_no_padding_goes_through_the_layers() -> None:
    model = a_ranker()
    use_ragged_attention(model.classifier)
    tokens: list[int] = []
    decoder: Any = model.classifier.base_model.decoder
    for layer in decoder.layers:
        layer.register_forward_hook(lambda _module, given, _answer: tokens.append(given[0].shape[1]))
    model.pooled([pad(ROWS[:3], 1), pad(ROWS[3:], 1)])
    # The top layer is asked about each prompt's last token alone.
    assert tokens == [sum(map(len, ROWS)), len(ROWS)]


def test_neighbours_of_equal_length_are_a_group() -> None:
    ragged = Ragged.of([pad(ROWS[:3], 1), pad(ROWS[3:], 1)])
    assert ragged.groups == ((2, 2), (1, 3), (1, 1), (2, 4))
    assert ragged.input_ids.tolist() == [token for row in ROWS for token in row]
    assert ragged.positions.tolist() == [place for row in ROWS for place in range(len(row))]


def test_a_prompt_without_a_token_counts_as_one() -> None:
    input_ids, attention_mask = pad([[5, 6], []], 1)
    ragged = Ragged.of([(input_ids, attention_mask)])
    assert (ragged.lengths.tolist(), ragged.input_ids.tolist()) == ([2, 1], [5, 6, 1])


def test_a_model_that_drops_layers_stays_as_it_is() -> None:
    model = a_ranker(layerdrop=0.5)
    use_ragged_attention(model.classifier)
    assert not has_ragged_attention(model.classifier)
