import pytest
import torch
from transformers import BertConfig, OPTConfig

from rankserve.trainer.model import RankerModel, RankerModelError
from rankserve.trainer.training.list_scorer import ListScorer


def scorer(extra_heads: int = 0) -> ListScorer:
    torch.manual_seed(0)
    config = OPTConfig(  # type: ignore[no-untyped-call]
        vocab_size=20,
        hidden_size=8,
        word_embed_proj_dim=8,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
    )
    return ListScorer(RankerModel.from_config(config), extra_heads).eval()


ROWS = torch.tensor([[5, 6, 7], [8, 9, 1]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
OTHERS = torch.tensor([[4]]), torch.tensor([[1]])


def test_parts_are_scored_as_by_the_ranker() -> None:
    model = scorer()
    expected = torch.cat([model.ranker(*ROWS), model.ranker(*OTHERS)])
    torch.testing.assert_close(model([ROWS, OTHERS]), expected)


def test_a_source_trains_the_body_and_its_own_head_alone() -> None:
    model = scorer(extra_heads=2)
    by_head = [model([ROWS], head) for head in range(3)]
    assert not torch.allclose(by_head[0], by_head[1])
    assert not torch.allclose(by_head[1], by_head[2])
    by_head[2].sum().backward()
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert {"heads.1.weight", "ranker.classifier.model.decoder.embed_tokens.weight"} <= learning
    assert not {"heads.0.weight", "ranker.classifier.score.weight"} & learning


def test_extra_heads_leave_the_ranker_as_it_is() -> None:
    plain, extended = scorer(), scorer(extra_heads=1)
    torch.testing.assert_close(plain([ROWS]), extended([ROWS]))


def test_scores_are_not_rounded_to_bf16() -> None:
    model = scorer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model([ROWS, OTHERS])
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())
    torch.testing.assert_close(scores, model([ROWS, OTHERS]), atol=0.02, rtol=0.1)


def test_a_classifier_that_pools_inside_its_head_has_no_room_for_others() -> None:
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    ranker = RankerModel.from_config(config).eval()
    torch.testing.assert_close(ListScorer(ranker)([ROWS]), ranker(*ROWS))
    with pytest.raises(RankerModelError, match="separate_heads"):
        ListScorer(ranker, extra_heads=1)
