"""`GET /v1/models`: the names by which clients may ask for what the server drives."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from rankserve.server.engines.contract import Engine
from rankserve.server.front_door.errors import HttpError


class ServedModels:
    """The engine under its own name and, where there is one, under the configured name.

    Args:
        engine: read at each request.
        configured_name: the name to go by; empty for the engine's own.
        started: Unix time; OpenAI's API wants to know when a model was made.
    """

    def __init__(self, engine: Callable[[], Engine], configured_name: str, started: float) -> None:
        self._engine = engine
        self._configured_name = configured_name
        self._started = int(started)

    @property
    def names(self) -> tuple[str, ...]:
        """The first is the one that is told to clients who ask for none."""
        engine = self._engine()
        names = (self._configured_name, *engine.models, engine.name)
        return tuple(dict.fromkeys(name for name in names if name))

    def resolve(self, name: str | None) -> str:
        """The name to tell the client. Raises HttpError 404 for one that is not served."""
        names = self.names
        if not name:
            return names[0]
        if name not in names:
            served = " or ".join(repr(known) for known in names)
            message = f"the model {name[:128]!r} does not exist; this server has {served}"
            raise HttpError(404, "model_not_found", message, param="model")
        return name

    def engine_name(self, name: str | None) -> str:
        """By what name the engine knows it. `name` must be one that is served."""
        engine = self._engine()
        return name if name is not None and name in engine.models else engine.models[0]

    async def list(self, request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [self._describe(name) for name in self.names]})

    async def get(self, request: Request) -> JSONResponse:
        return JSONResponse(self._describe(self.resolve(request.path_params["model"])))

    def _describe(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "rankserve",
            "max_model_len": self._engine().capacity.max_model_len,
        }
