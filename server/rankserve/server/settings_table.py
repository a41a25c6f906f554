"""What an operator can set, in words: name, default, meaning.

Standard library only: the help of `rankserve serve` is made of it where nothing else is installed.
`settings.ServerSettings` adds types and bounds.
"""

from dataclasses import dataclass
from enum import StrEnum

ENVIRONMENT_PREFIX = "RANKSERVE_"


class Topic(StrEnum):
    LISTENING = "Listening"
    SECURITY = "Security"
    SCHEDULING = "Scheduling"
    RANKER = "Ranker"
    ENGINE = "Engine"
    LIMITS = "Limits"
    LIFECYCLE = "Lifecycle"
    OPERATIONS = "Operations"


@dataclass(slots=True, frozen=True)
class Setting:
    """A setting as it is described everywhere.

    Attributes:
        value: what kind of value it takes, for help: a unit where it has one, the choices where they are few.
        default: as `ServerSettings` has it, enumerations by value; None where it can be left unset.
        unset: what holds while it is not set.
    """

    topic: Topic
    value: str
    default: str | int | float | bool | None
    description: str
    unset: str = "none"

    @property
    def shown_default(self) -> str:
        if self.default is None or self.default == "":
            return self.unset
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return str(self.default)


def option_name(name: str, value: object = None) -> str:
    """The option of `rankserve serve` for a setting, or for turning it off."""
    return ("--no-" if value is False else "--") + name.replace("_", "-")


def variable_name(name: str) -> str:
    """The environment variable for a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


SETTINGS = {
    "host": Setting(Topic.LISTENING, "ADDRESS", "127.0.0.1", "Address to listen on."),
    "port": Setting(Topic.LISTENING, "PORT", 50051, "Port to listen on; 0 takes a free one."),
    "http_host": Setting(
        Topic.LISTENING,
        "ADDRESS",
        "",
        "Address of the OpenAI-compatible HTTP API to listen on.",
        unset="that of --host",
    ),
    "http_port": Setting(
        Topic.LISTENING,
        "PORT",
        None,
        "Port of the OpenAI-compatible HTTP API; 0 takes a free one.",
        unset="no HTTP API",
    ),
    "served_model_name": Setting(
        Topic.LISTENING,
        "NAME",
        "",
        "Name of the model for clients of the HTTP API, beside the engine's own.",
        unset="the engine's own alone",
    ),
    "token_file": Setting(
        Topic.SECURITY,
        "FILE",
        None,
        "File with the token that callers must send, or (.toml) several with roles and tenants. Read again"
        " when it changes.",
        unset="no token",
    ),
    "allow_unauthenticated": Setting(
        Topic.SECURITY, "BOOLEAN", False, "Listen beyond loopback without a token."
    ),
    "metrics_open": Setting(Topic.SECURITY, "BOOLEAN", False, "Show /metrics to callers without a token."),
    "tls_certificate": Setting(
        Topic.SECURITY,
        "FILE",
        None,
        "PEM file with the server's certificate and its chain: serve TLS. Read again when it changes.",
        unset="no TLS",
    ),
    "tls_key": Setting(
        Topic.SECURITY, "FILE", None, "PEM file with the certificate's private key.", unset="no TLS"
    ),
    "tls_client_ca": Setting(
        Topic.SECURITY,
        "FILE",
        None,
        "PEM file with the authorities whose certificates callers must show (mutual TLS).",
        unset="callers need no certificate",
    ),
    "reflection": Setting(
        Topic.SECURITY,
        "admin|all|off",
        "admin",
        "Who may ask what methods there are: with tokens, those with the role admin; all; or nobody.",
    ),
    "policy": Setting(
        Topic.SCHEDULING,
        "NAME",
        "bounded_ranking",
        "Who goes first: bounded_ranking (shortest expected answer, but nobody waits much longer than under"
        " FCFS), ranking (without that bound), cost_aware (least expected KV cache use), classification,"
        " aged_ranking or hrrn (expected length against the wait), mlfq (learns by running), edf (deadlines),"
        " fcfs; sjf and srtf (oracles, for replays).",
    ),
    "ageing_tokens_per_s": Setting(
        Topic.SCHEDULING,
        "TOKENS",
        10.0,
        "aged_ranking: predicted tokens that one second of waiting makes up for.",
    ),
    "max_wait_ms": Setting(
        Topic.SCHEDULING,
        "MS",
        None,
        "Starvation bound: a request that waited this long goes before all of its priority.",
        unset="the policy's own bound, if it has one",
    ),
    "starvation_threshold_steps": Setting(
        Topic.SCHEDULING,
        "STEPS",
        0,
        "The paper's bound: promote a request after this many LLM steps unscheduled; 0 turns it off.",
    ),
    "starvation_quantum_steps": Setting(
        Topic.SCHEDULING, "STEPS", 10, "Steps for which a promoted request is protected from eviction."
    ),
    "fair_share": Setting(
        Topic.SCHEDULING,
        "BOOLEAN",
        True,
        "Tenants take turns by the tokens they were served; without, they compete.",
    ),
    "preemption": Setting(
        Topic.SCHEDULING,
        "off|recompute|swap",
        "off",
        "Evict a running request for a waiting one that the policy puts far enough ahead: off, recompute (its"
        " KV cache is lost and computed again) or swap (kept on the host). Running out of KV blocks evicts in"
        " any case.",
    ),
    "preemption_margin": Setting(
        Topic.SCHEDULING,
        "FACTOR",
        1.0,
        "How many times its cost an eviction must gain; higher means fewer evictions.",
    ),
    "gather_ms": Setting(
        Topic.SCHEDULING,
        "MS",
        0.0,
        "How long the first request in an empty queue waits for others to be ordered with: of a burst into an"
        " idle LLM, the best start, not the first to arrive.",
    ),
    "kv_reservation": Setting(
        Topic.SCHEDULING,
        "none|predicted|max",
        "none",
        "KV blocks set aside when a request starts: none, predicted (the answer's expected 90th percentile)"
        " or max (max_tokens). More means fewer evictions and smaller batches.",
    ),
    "repository": Setting(
        Topic.RANKER,
        "FOLDER",
        None,
        "Folder of ranker versions.",
        unset="the ranker that ships with us",
    ),
    "ranker": Setting(
        Topic.RANKER,
        "NAME",
        None,
        "Name of the ranker; none serves without one, for policies that need no scores.",
        unset="the repository's active version",
    ),
    "ranker_version": Setting(Topic.RANKER, "NUMBER", None, "Version of the ranker.", unset="the newest"),
    "ranker_threads": Setting(Topic.RANKER, "THREADS", 1, "CPU threads of the ranker."),
    "ranker_timeout_ms": Setting(
        Topic.RANKER, "MS", 10_000.0, "A request not scored within this time gets a neutral score."
    ),
    "ranker_provider": Setting(
        Topic.RANKER,
        "NAME",
        "CPUExecutionProvider",
        "ONNX Runtime provider, e.g. CUDAExecutionProvider; refused if not to be had.",
    ),
    "engine": Setting(
        Topic.ENGINE,
        "NAME",
        "simulated",
        "The engine to drive: simulated, or openai, which is any LLM behind the OpenAI API.",
    ),
    "engine_url": Setting(
        Topic.ENGINE,
        "URL",
        "",
        "Where LLMs serve the OpenAI API, like http://127.0.0.1:8000/v1; several with commas between.",
    ),
    "engine_file": Setting(
        Topic.ENGINE,
        "FILE",
        None,
        "TOML file of endpoints, with a weight, a limit and a model for each; read again when it changes.",
    ),
    "engine_model": Setting(
        Topic.ENGINE, "NAME", "", "The model to ask the LLM's server for.", unset="the first it has"
    ),
    "engine_dialect": Setting(
        Topic.ENGINE,
        "vllm|sglang|llama.cpp|openai",
        "",
        "What the LLM's server can do beyond the OpenAI API.",
        unset="what it says it is",
    ),
    "engine_priority": Setting(
        Topic.ENGINE,
        "off|lower-first|higher-first",
        "off",
        "How the LLM's server orders its own queue by priority, where it was started to do so: vLLM takes the"
        " lower first, SGLang the higher. vLLM refuses priorities if it was not.",
    ),
    "engine_api_key_file": Setting(
        Topic.ENGINE, "FILE", None, "File that holds the API key for the LLM's server."
    ),
    "engine_timeout_s": Setting(
        Topic.ENGINE,
        "SECONDS",
        300.0,
        "Silence of the LLM's server after which an answer is taken for lost.",
    ),
    "profile": Setting(
        Topic.ENGINE,
        "NAME",
        "",
        "Which LLM and GPU is simulated: a100-llama3-8b, h100-llama3-8b, a100-llama3-70b-tp4,"
        " h100-llama3-70b-tp4; `rankserve profile list` tells all.",
        unset="a100-llama3-8b",
    ),
    "max_sequences": Setting(
        Topic.ENGINE,
        "SEQUENCES",
        None,
        "Batch cap in sequences; of real LLMs the most requests in flight at one endpoint.",
        unset="the profile's; learned, of real LLMs",
    ),
    "max_batched_tokens": Setting(
        Topic.ENGINE, "TOKENS", None, "Batch cap in tokens for one step.", unset="the profile's"
    ),
    "kv_blocks": Setting(Topic.ENGINE, "BLOCKS", None, "KV blocks of 16 tokens.", unset="the profile's"),
    "time_scale": Setting(
        Topic.ENGINE, "FACTOR", 1.0, "Simulated LLM: how many of its seconds pass in one of ours."
    ),
    "seed": Setting(Topic.ENGINE, "NUMBER", 0, "Seed of the simulated LLM's answer lengths."),
    "replay": Setting(
        Topic.ENGINE, "BOOLEAN", False, "Accept recorded answer lengths (replay_* fields) from clients."
    ),
    "max_waiting": Setting(
        Topic.LIMITS, "REQUESTS", 10_000, "Most requests that wait; more are refused, or see shed."
    ),
    "max_waiting_bytes": Setting(
        Topic.LIMITS, "BYTES", 256 << 20, "Most bytes of text that wait; what exceeds them is refused."
    ),
    "max_waiting_per_tenant": Setting(
        Topic.LIMITS, "REQUESTS", None, "Most requests of one tenant that wait.", unset="max_waiting alone"
    ),
    "max_waiting_bytes_per_tenant": Setting(
        Topic.LIMITS,
        "BYTES",
        None,
        "Most bytes of text of one tenant that wait.",
        unset="max_waiting_bytes alone",
    ),
    "max_prompt_bytes": Setting(Topic.LIMITS, "BYTES", 256 << 10, "Longest prompt, in UTF-8."),
    "default_max_tokens": Setting(
        Topic.LIMITS, "TOKENS", 1024, "Longest answer of requests that set no max_tokens."
    ),
    "refuse_late": Setting(
        Topic.LIMITS,
        "BOOLEAN",
        False,
        "Refuse a request at once whose deadline its estimated wait exceeds.",
    ),
    "shed": Setting(
        Topic.LIMITS,
        "BOOLEAN",
        False,
        "When the queue is full, a request of better priority takes the place of the worst that waits.",
    ),
    "max_stream_events": Setting(
        Topic.LIMITS,
        "EVENTS",
        16_384,
        "Events that may wait for the client of a stream; while there are more, nothing is read from it.",
    ),
    "max_open_streams": Setting(
        Topic.LIMITS, "STREAMS", 8_000, "Most streaming calls that are open; one more is refused."
    ),
    "max_open_streams_per_caller": Setting(
        Topic.LIMITS, "STREAMS", 4_000, "Most streaming calls of one token that are open."
    ),
    "max_metadata_bytes": Setting(
        Topic.LIMITS, "BYTES", 16 << 10, "Most bytes of metadata that a call may carry."
    ),
    "slow_client_s": Setting(
        Topic.LIMITS,
        "SECONDS",
        30.0,
        "A stream is ended whose client takes nothing of what there is for it for so long.",
    ),
    "flush_interval_ms": Setting(
        Topic.LIMITS,
        "MS",
        5.0,
        "Pause between two messages of a stream, in which its events gather; more means fewer messages.",
    ),
    "journal": Setting(
        Topic.LIFECYCLE,
        "FILE",
        None,
        "SQLite file that accepted requests are recorded in, so that a restart goes on with them.",
        unset="requests are lost with the process",
    ),
    "retain_results": Setting(
        Topic.LIFECYCLE, "REQUESTS", 5_000, "Most ended requests whose results are kept for clients."
    ),
    "retain_s": Setting(Topic.LIFECYCLE, "SECONDS", 600.0, "How long results are kept for clients."),
    "drain_timeout_s": Setting(
        Topic.LIFECYCLE, "SECONDS", 30.0, "On SIGTERM, how long running requests may take to finish."
    ),
    "drain_notice_s": Setting(
        Topic.LIFECYCLE,
        "SECONDS",
        0.0,
        "On SIGTERM, seconds of NOT_SERVING health before requests are refused.",
    ),
    "operations_port": Setting(
        Topic.OPERATIONS,
        "PORT",
        None,
        "Port of the live page, /metrics, /healthz and /readyz; 0 takes a free one.",
        unset="closed",
    ),
    "operations_host": Setting(
        Topic.OPERATIONS,
        "ADDRESS",
        "127.0.0.1",
        "Address of that port. The page shows request ids and tenants: keep it inside.",
    ),
    "tau_window": Setting(
        Topic.OPERATIONS,
        "REQUESTS",
        1_000,
        "Finished requests of a ranker version on which its Kendall's tau in service is measured.",
    ),
    "traces": Setting(
        Topic.OPERATIONS,
        "BOOLEAN",
        False,
        "Export a trace of each request over OTLP, as the OTEL_* variables say.",
    ),
    "log_level": Setting(
        Topic.OPERATIONS, "debug|info|warning|error", "info", "Least severe lines that are logged."
    ),
    "log_format": Setting(
        Topic.OPERATIONS,
        "auto|json|console",
        "auto",
        "Format of log lines on stderr; auto is console on a terminal, else json.",
    ),
    "request_log": Setting(
        Topic.OPERATIONS,
        "BOOLEAN",
        False,
        "Log a line for each request that ends or is refused, and at level debug for each that is accepted,"
        " scored or started. Prompts and answers are never logged.",
    ),
}
