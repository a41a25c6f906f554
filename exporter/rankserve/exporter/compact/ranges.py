"""Which values a ranker's activations take, measured on prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankserve.exporter.compact.builder import GraphBuilder
from rankserve.exporter.compact.transformer import Array
from rankserve.exporter.session import open_session
from rankserve.exporter.tokenization import Tokens, pad
from rankserve.progress import track

# More change the ranges by less than the headroom.
_MAX_PROMPTS = 512
# Prompts to come go a little further than those at hand; what goes beyond this is clipped.
_HEADROOM = np.float32(1.1)


@dataclass(slots=True, frozen=True)
class ChannelRange:
    """Lowest and highest value of each channel of an activation, both [width]; 0 is always within."""

    low: Array
    high: Array

    @property
    def magnitude(self) -> Array:
        """Largest absolute value of each channel."""
        return np.maximum(-self.low, self.high)

    def divided(self, scale: Array) -> "ChannelRange":
        """Of the activation divided by a positive scale a channel."""
        return ChannelRange(self.low / scale, self.high / scale)


def measure_ranges(
    graph: GraphBuilder, sites: Mapping[str, str], rows: Sequence[Tokens], *, seed: int
) -> dict[str, ChannelRange]:
    """Ranges at each site over prompts, with headroom.

    Args:
        graph: a ranker in fp32.
        sites: the value that enters at each site, by the site's name.
        rows: tokenised prompts; at most 512 are drawn.
        seed: of the draw.
    """
    session = open_session(graph.model(also=dict.fromkeys(sites.values(), 2)))
    names = list(sites.values())
    drawn = np.random.default_rng(seed).permutation(len(rows))[:_MAX_PROMPTS].tolist()
    low: list[Array] = []
    high: list[Array] = []
    for number in track(drawn, "measuring activations", "prompts"):
        # One prompt at a time: what happens at padding must not count.
        input_ids, attention_mask = pad([rows[number]], 0)
        values = session.run(names, {"input_ids": input_ids, "attention_mask": attention_mask})
        lowest, highest = [value.min(axis=0) for value in values], [value.max(axis=0) for value in values]
        low = [np.minimum(*pair) for pair in zip(low, lowest, strict=True)] if low else lowest
        high = [np.maximum(*pair) for pair in zip(high, highest, strict=True)] if high else highest
    return {
        site: ChannelRange(at_least.clip(max=0) * _HEADROOM, at_most.clip(min=0) * _HEADROOM)
        for site, at_least, at_most in zip(sites, low, high, strict=True)
    }
