"""What the engine can serve, and what a request takes of it."""

from rankserve.server.engines.contract import Engine, text_of
from rankserve.server.errors import InvalidRequest
from rankserve.server.requests import RequestSpec


class EngineLimits:
    """The lengths that requests have, and may have.

    Args:
        engine: that is to serve them.
        default_max_tokens: of the answer, where a request does not say.
    """

    def __init__(self, engine: Engine, default_max_tokens: int) -> None:
        self._engine = engine
        self._default_max_tokens = default_max_tokens

    def input_tokens(self, spec: RequestSpec) -> int:
        """The prompt's length; recorded, or counted."""
        return spec.replay_input_tokens or self._engine.count_tokens(text_of(spec.prompt))

    def max_tokens(self, spec: RequestSpec, input_tokens: int) -> int:
        """The longest answer that a request may get."""
        longest = self._engine.capacity.max_model_len - input_tokens
        return spec.max_tokens or max(1, min(self._default_max_tokens, longest))

    def model(self, spec: RequestSpec) -> str:
        """Whose queue it waits in; see `Request.model`."""
        return "" if spec.model in ("", self._engine.name, *self._engine.models[:1]) else spec.model

    def check(self, spec: RequestSpec) -> None:
        """Raises InvalidRequest if the engine cannot serve it."""
        models = self._engine.models
        if spec.model not in ("", self._engine.name, *models):
            served = " or ".join(map(repr, models))
            raise InvalidRequest("model", f"this server drives {served}; or leave it empty")
        self._check_length(spec, 0)

    def check_recovered(self, spec: RequestSpec, produced: int) -> None:
        """As `check`, with so many tokens of the answer there.

        Its model may be that of an endpoint that has not been reached since this server started.
        """
        if all(endpoint.model for endpoint in self._engine.endpoint_states()):
            self.check(spec)
        self._check_length(spec, produced)

    def _check_length(self, spec: RequestSpec, produced: int) -> None:
        capacity = self._engine.capacity
        if not capacity.counts_tokens:
            return
        longest = capacity.max_model_len
        input_tokens = self.input_tokens(spec)
        output_tokens = max(spec.max_tokens or 1, produced + 1)
        if input_tokens + output_tokens > longest:
            field = "prompt" if input_tokens + 1 > longest else "sampling.max_tokens"
            raise InvalidRequest(
                field,
                f"{input_tokens} prompt tokens and {output_tokens} to answer exceed the"
                f" model's {longest}; shorten the prompt or lower max_tokens",
            )
