"""What servers of the OpenAI API can do beyond it."""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class LoadMetrics:
    """The names of its gauges in `/metrics`; empty where it has none.

    Attributes:
        running, waiting: sequences in its batch, and requests behind it.
        kv_use: part of its KV cache that is in use, from 0 to 1.
    """

    running: str
    waiting: str
    kv_use: str = ""


@dataclass(slots=True, frozen=True)
class Dialect:
    """One kind of server.

    Attributes:
        name: as operators write it.
        owned_by: what it says of itself in `/v1/models`.
        counts_each_chunk: whether it tells with each chunk how many tokens there are so far, if asked to.
        continues_chats: whether it goes on with a chat whose last message is the beginning of an answer.
        continue_fields: what it must be told for that.
        health: where it tells whether it serves, beside its base URL; empty for its list of models.
        load: how it tells its load.
    """

    name: str
    owned_by: str = ""
    counts_each_chunk: bool = False
    continues_chats: bool = False
    continue_fields: tuple[tuple[str, bool], ...] = ()
    health: str = ""
    load: LoadMetrics | None = None


_CONTINUE = (("continue_final_message", True), ("add_generation_prompt", False))

OPENAI = Dialect("openai")
DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "vllm",
            owned_by="vllm",
            counts_each_chunk=True,
            continues_chats=True,
            continue_fields=_CONTINUE,
            health="/health",
            load=LoadMetrics(
                "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
            ),
        ),
        Dialect(
            "sglang",
            owned_by="sglang",
            counts_each_chunk=True,
            continues_chats=True,
            continue_fields=_CONTINUE[:1],
            health="/health",
            load=LoadMetrics("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage"),
        ),
        Dialect(
            "llama.cpp",
            owned_by="llamacpp",
            continues_chats=True,
            health="/health",
            load=LoadMetrics("llamacpp:requests_processing", "llamacpp:requests_deferred"),
        ),
        OPENAI,
    )
}


def dialect_of(owned_by: str) -> Dialect:
    """The dialect of a server that says so of itself; plain OpenAI's where nothing is known of it."""
    return next((d for d in DIALECTS.values() if d.owned_by and d.owned_by == owned_by), OPENAI)
