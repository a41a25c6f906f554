"""What of a request to an OpenAI-compatible API is ranked. Whether it is sound is the engine's to say."""

from collections.abc import Callable
from typing import Any

from rankserve.server.chat_text import chat_ranking_text

# Of a request with several prompts, so many are looked at.
_MOST_PROMPTS = 16
_TEXT_PARTS = ("text", "input_text")

Reader = Callable[[dict[str, Any]], list[str]]


def find_reader(method: str, path: str) -> Reader | None:
    """What reads the ranked texts of a body; None for requests that are not ordered."""
    if method != "POST":
        return None
    return next((reader for ending, reader in _READERS.items() if path.endswith(ending)), None)


def _of_completion(body: dict[str, Any]) -> list[str]:
    prompt = body.get("prompt")
    prompts = prompt[:_MOST_PROMPTS] if isinstance(prompt, list) else [prompt]
    return [text for text in prompts if isinstance(text, str) and text.strip()]


def _of_chat(body: dict[str, Any]) -> list[str]:
    return _of_turns(body.get("messages"))


def _of_response(body: dict[str, Any]) -> list[str]:
    given = body.get("input")
    return [given] if isinstance(given, str) and given.strip() else _of_turns(given)


def _of_turns(messages: object) -> list[str]:
    if not isinstance(messages, list):
        return []
    users = (turn for turn in messages if isinstance(turn, dict) and turn.get("role") == "user")
    texts = [text for text in (_text(turn.get("content")) for turn in users) if text.strip()]
    return [chat_ranking_text(texts)] if texts else []


def _text(content: object) -> str:
    """A string, or the text parts of a list, joined by newlines as vLLM does; images and sound have none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part for part in content if isinstance(part, dict) and part.get("type") in _TEXT_PARTS)
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))


_READERS = {
    "/v1/completions": _of_completion,
    "/v1/chat/completions": _of_chat,
    "/v1/responses": _of_response,
    # Anthropic's, in which results of tools are turns of the user that have no text.
    "/v1/messages": _of_chat,
}
