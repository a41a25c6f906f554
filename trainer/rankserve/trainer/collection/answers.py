"""What an endpoint's response says: an answer's length, a refusal, or that another try is worth it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rankserve.records.json_values import is_integer
from rankserve.trainer.collection.errors import EndpointError, PromptRefusedError, UnansweredError

# Busy, or another answer may come: 408 timeout, 409 conflict, 425 too early, 429 too many.
_TRY_AGAIN = frozenset((408, 409, 425, 429))
_WHAT_TO_DO = {
    401: "set the API key: export it in the variable that --api-key-env names",
    402: "the account behind the key has to pay",
    403: "the API key must not use this model",
    404: "check --model, and that --url ends as the endpoint wants it, mostly in /v1",
    405: "check --url: it takes no requests of this kind",
}
_LONGEST_REASON = 300


@dataclass(slots=True, frozen=True)
class Answer:
    """The length of one answer.

    Attributes:
        output_tokens: at least 1; all that was generated, thoughts included.
        censored: the cap was reached, so the length is at least this.
        input_tokens: of the prompt as the model saw it; None if the endpoint does not say.
        latency_s: of the request that brought it.
    """

    output_tokens: int
    censored: bool
    input_tokens: int | None
    latency_s: float


def check_status(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> None:
    """Raises what a status other than 200 means.

    Raises:
        EndpointError: nothing will be answered.
        PromptRefusedError: this prompt will not.
        UnansweredError: it may be, later.
    """
    if status == 200:
        return
    document = _document(body)
    message = _message(document)
    reason = f"HTTP {status}" + (f": {message}" if message else "")
    if 300 <= status < 400:
        raise EndpointError(
            f"{reason}: the endpoint sends us elsewhere, which is not followed: say the final --url"
        )
    if _error(document).get("code") == "insufficient_quota":
        raise EndpointError(f"{reason} ({_WHAT_TO_DO[402]}), then run the same command again")
    if status in _WHAT_TO_DO:
        raise EndpointError(f"{reason} ({_WHAT_TO_DO[status]})")
    if status in _TRY_AGAIN or status >= 500:
        raise UnansweredError(reason, retry_after_s=_retry_after_s(headers.get("retry-after"), now))
    if 400 <= status < 500:
        raise PromptRefusedError(reason)
    raise UnansweredError(f"{reason}: not a status that an answer has")


def read_answer(body: bytes, latency_s: float) -> Answer:
    """The answer in the body of a response with status 200.

    Raises:
        EndpointError: it does not say how many tokens it has.
        PromptRefusedError: a filter cut it.
        UnansweredError: it is no answer, or was broken off.
    """
    document = _document(body)
    choices = document.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise UnansweredError("HTTP 200 with something else than one answer in JSON")
    finish_reason = choices[0].get("finish_reason")
    if finish_reason == "content_filter":
        raise PromptRefusedError("the endpoint's content filter cut the answer")
    if not isinstance(finish_reason, str) or finish_reason in ("abort", "error"):
        raise UnansweredError(f"the answer was broken off (finish_reason {finish_reason!r:.40})")
    usage = document.get("usage")
    output_tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not is_integer(output_tokens) or output_tokens < 0:
        raise EndpointError(
            "the endpoint's answers have no usage.completion_tokens, which is the output length: use a "
            "server that reports it, as vLLM, SGLang and llama.cpp do, or have the proxy before it pass it on"
        )
    input_tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Answer(
        # An answer that is empty still took the step that ended it.
        output_tokens=max(1, output_tokens),
        censored=finish_reason == "length",
        input_tokens=input_tokens if is_integer(input_tokens) and input_tokens > 0 else None,
        latency_s=latency_s,
    )


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _error(document: dict[str, Any]) -> dict[str, Any]:
    error = document.get("error")
    return error if isinstance(error, dict) else {}


def _message(document: dict[str, Any]) -> str:
    """What the endpoint says of an error; the field is not the same everywhere."""
    for value in (_error(document).get("message"), *map(document.get, ("error", "message", "detail"))):
        if isinstance(value, str):
            return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", value[: 4 * _LONGEST_REASON])[
                :_LONGEST_REASON
            ].strip()
    return ""


def _retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value.strip()):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds())
