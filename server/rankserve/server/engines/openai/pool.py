"""The endpoints there are, and which of them a request goes to."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

import structlog

from rankserve.server.engines.openai.endpoint import Endpoint
from rankserve.server.engines.openai.endpoint_settings import EndpointSettings
from rankserve.server.engines.openai.errors import EndpointTrouble

log = structlog.get_logger(__name__)


class EndpointPool:
    """Endpoints come and go while the server runs; those that go finish what they have.

    Args:
        make: an endpoint of its settings.
    """

    def __init__(self, make: Callable[[EndpointSettings], Endpoint]) -> None:
        self._make = make
        self._endpoints: dict[str, Endpoint] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._default_model = ""
        self._seen: set[str] = set()

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return list(self._endpoints.values())

    @property
    def models(self) -> tuple[str, ...]:
        """Those that endpoints have, the default first."""
        return tuple(dict.fromkeys((self._default_model, *self._found()))) if self._default_model else ()

    @property
    def gone(self) -> set[str]:
        """Models that endpoints had and none has any more."""
        return self._seen.difference(self.models)

    async def set(self, wanted: Iterable[EndpointSettings]) -> None:
        """Makes these the endpoints there are. Raises EndpointError, with nothing changed, if they cannot."""
        by_url = {settings.url: settings for settings in wanted}
        keys = {url: settings.api_key() for url, settings in by_url.items()}
        new: dict[str, Endpoint] = {}
        for url, settings in by_url.items():
            known = self._endpoints.get(url)
            if known is None or _is_another(known.settings, settings):
                new[url] = self._make(settings)
        learnt = await asyncio.gather(*(self._learn(e) for e in new.values()), return_exceptions=True)
        if problems := [problem for problem in learnt if problem is not None]:
            await asyncio.gather(*(endpoint.aclose() for endpoint in new.values()))
            raise problems[0]
        for url, endpoint in list(self._endpoints.items()):
            if url in new or url not in by_url:
                self._leave(url, endpoint)
            else:
                endpoint.change(by_url[url], keys[url])
        for url, endpoint in new.items():
            log.info("endpoint_added", url=url, model=endpoint.model, dialect=endpoint.dialect.name)
            self._endpoints[url] = endpoint
            self._watches[url] = asyncio.create_task(endpoint.watch(), name=f"endpoint {url}")
        self.settle()

    def settle(self) -> None:
        """Takes note of the models that endpoints have by now: they may have learned theirs since.

        The default is the first endpoint's, for as long as any endpoint has it.
        """
        found = self._found()
        self._seen.update(found)
        if found and self._default_model not in found:
            if self._default_model:
                log.warning("default_model_gone", model=self._default_model, instead=found[0])
            self._default_model = found[0]

    def room(self, model: str) -> int:
        """How many more requests for this model there is room for."""
        return sum(endpoint.room for endpoint in self._having(model))

    def serves(self, model: str) -> bool:
        """Whether any endpoint that has this model may be given something."""
        return any(endpoint.serves for endpoint in self._having(model))

    def place(
        self, model: str, able: Callable[[Endpoint], bool], avoid: Collection[str] = ()
    ) -> Endpoint | None:
        """Where the next request for this model goes: of those with room, where least is to be held.

        Where none has room any more, of those that serve.

        Args:
            model: that it asks for.
            able: whether an endpoint can answer it.
            avoid: URLs of endpoints that are taken only where there is no other.

        Returns:
            None if no endpoint that serves is able.
        """
        serving = [endpoint for endpoint in self._having(model) if endpoint.serves and able(endpoint)]
        return min(
            serving,
            key=lambda endpoint: (endpoint.url in avoid, not endpoint.room, endpoint.fullness),
            default=None,
        )

    def any_able(self, model: str, able: Callable[[Endpoint], bool]) -> bool:
        """Whether any endpoint that serves this model is able; while none serves, any that has it."""
        having = list(self._having(model))
        return any(able(endpoint) for endpoint in [e for e in having if e.serves] or having)

    def released(self, endpoint: Endpoint) -> None:
        """An endpoint has a request less."""
        if endpoint.leaving and not endpoint.in_flight:
            task = asyncio.create_task(endpoint.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        for task in self._watches.values():
            task.cancel()
        await asyncio.gather(*(endpoint.aclose() for endpoint in self._endpoints.values()))

    def _found(self) -> list[str]:
        return list(dict.fromkeys(endpoint.model for endpoint in self._endpoints.values() if endpoint.model))

    def _having(self, model: str) -> Iterable[Endpoint]:
        return (endpoint for endpoint in self._endpoints.values() if endpoint.model == model)

    def _leave(self, url: str, endpoint: Endpoint) -> None:
        log.info("endpoint_leaves", url=url, in_flight=len(endpoint.in_flight))
        endpoint.leaving = True
        del self._endpoints[url]
        self._watches.pop(url).cancel()
        self.released(endpoint)

    async def _learn(self, endpoint: Endpoint) -> None:
        try:
            await endpoint.learn()
        except EndpointTrouble as trouble:
            # It may come later.
            log.warning("endpoint_unreachable", url=endpoint.url, reason=str(trouble))
            endpoint.breaker.missed(for_sure=True)


def _is_another(before: EndpointSettings, after: EndpointSettings) -> bool:
    """Whether more has changed than what an endpoint can take over."""
    changeable = {"weight": after.weight, "max_sequences": after.max_sequences, "priority": after.priority}
    return before.model_copy(update=changeable) != after
