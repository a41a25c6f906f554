"""An OPT that begins with the weights of a pretrained BERT encoder.

A post-norm OPT layer (`do_layer_norm_before=False`, that of OPT-350M) computes what a BERT layer does, weight
for weight; the donor's activation is kept. Two things differ. OPT's attention is causal, so fine-tuning has
to move what a token learned from its right to the tokens after it; the last token, where a ranker pools, sees
all in both. And BERT normalises the sum of token, position and segment embedding, which OPT does not: the
additive function that is nearest to the normalised sum, in the mean square over tokens as frequent as in the
prompts at hand, is taken instead (its main effects: the mean over positions for a token, the mean over tokens
for a position).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertModel, OPTConfig, PreTrainedTokenizerFast

from rankserve.trainer.model import Pooling, RankerModel, RankerModelError

# The mean over tokens takes the most frequent ones, which make up nearly all of the text.
_FREQUENT_TOKENS = 4096
_TOKENS_AT_A_TIME = 256
# What computes the same in an OPT layer and in a BERT layer.
_COUNTERPARTS = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "output.LayerNorm",
}


def transplanted(
    donor: str,
    tokenizer: PreTrainedTokenizerFast,
    token_counts: Tensor,
    usual_length: int,
    *,
    layers: Sequence[int],
    max_length: int,
    dropout: float,
    pooling: Pooling,
) -> RankerModel:
    """An OPT ranker with the donor's embeddings and some of its layers; the head is drawn at random.

    Args:
        donor: checkpoint folder or hub id of a BERT encoder.
        tokenizer: the donor's.
        token_counts: [vocabulary], of each token in the prompts at hand.
        usual_length: positions that a token's embedding is averaged over.
        layers: which of the donor's layers, in order.
        max_length: positions that the OPT gets.
        dropout: of the OPT.
        pooling: of the ranker.

    Raises:
        RankerModelError: the donor is no BERT, or lacks layers or positions asked for.
    """
    bert = _load(donor)
    config = bert.config
    if not layers or max(layers) >= config.num_hidden_layers:
        raise RankerModelError(
            f"transplant.layers is {list(layers)}, but {donor} has layers 0 to {config.num_hidden_layers - 1}"
        )
    if max_length > config.max_position_embeddings:
        raise RankerModelError(
            f"model.max_length is {max_length}, but {donor} has positions for "
            f"{config.max_position_embeddings}"
        )
    ranker = RankerModel.from_config(
        OPTConfig(  # type: ignore[no-untyped-call]
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            word_embed_proj_dim=config.hidden_size,
            ffn_dim=config.intermediate_size,
            num_hidden_layers=len(layers),
            num_attention_heads=config.num_attention_heads,
            max_position_embeddings=max_length,
            do_layer_norm_before=False,
            activation_function=config.hidden_act,
            dropout=dropout,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            pad_token_id=tokenizer.pad_token_id,
            ranker_pooling=pooling,
        )
    )
    donated = bert.state_dict()
    tokens, positions = _embeddings(
        donated, config.layer_norm_eps, token_counts, usual_length=min(usual_length, max_length)
    )
    state = ranker.classifier.model.state_dict()
    state["decoder.embed_tokens.weight"] = tokens
    # OPT's first rows stand for no position.
    state["decoder.embed_positions.weight"][-max_length:] = positions[:max_length]
    for ours, theirs in enumerate(layers):
        for part, counterpart in _COUNTERPARTS.items():
            for kind in ("weight", "bias"):
                state[f"decoder.layers.{ours}.{part}.{kind}"] = donated[
                    f"encoder.layer.{theirs}.{counterpart}.{kind}"
                ]
    ranker.classifier.model.load_state_dict(state)
    return ranker


def _load(donor: str) -> BertModel:
    try:
        model: object = AutoModel.from_pretrained(donor, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise RankerModelError(f"cannot load {donor}: {error}") from error
    if not isinstance(model, BertModel):
        raise RankerModelError(
            f"{donor} is a {type(model).__name__}; only a BERT can be transplanted into OPT"
        )
    return model


def _embeddings(
    donated: Mapping[str, Tensor], epsilon: float, token_counts: Tensor, usual_length: int
) -> tuple[Tensor, Tensor]:
    """Of tokens [vocabulary, hidden] and of positions [positions, hidden], whose sum is nearest to BERT's."""
    tokens = donated["embeddings.word_embeddings.weight"]
    places = donated["embeddings.position_embeddings.weight"]
    places = places + donated["embeddings.token_type_embeddings.weight"][0]
    scale, shift = donated["embeddings.LayerNorm.weight"], donated["embeddings.LayerNorm.bias"]

    def normalised(sums: Tensor) -> Tensor:
        return nn.functional.layer_norm(sums, scale.shape, scale, shift, epsilon)

    # In parts: all of a vocabulary at all of its places are gigabytes.
    by_token = torch.cat(
        [
            torch.stack([normalised(some + place) for place in places[:usual_length]]).mean(dim=0)
            for some in torch.split(tokens, _TOKENS_AT_A_TIME)
        ]
    )
    frequent = token_counts.topk(min(_FREQUENT_TOKENS, len(tokens))).indices
    shares = token_counts[frequent] / token_counts[frequent].sum()
    by_place = torch.stack([shares @ normalised(tokens[frequent] + place) for place in places])
    return by_token, by_place - shares @ by_token[frequent]
