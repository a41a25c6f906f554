"""The real `openai` package on a server's HTTP address."""

import openai
from support.messages import PROMPT_MARKER
from support.server_process import ServerProcess

MODEL = "chat-model"


def base_url(server: ServerProcess) -> str:
    return f"http://{server.listening['http_address']}/v1"


def client(server: ServerProcess, api_key: str = "none", max_retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url(server), api_key=api_key, max_retries=max_retries)


def async_client(server: ServerProcess, api_key: str = "none", max_retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url(server), api_key=api_key, max_retries=max_retries)


def prompt(words: int = 2) -> str:
    """The toy ranker scores it lower the more words it has."""
    return " ".join([PROMPT_MARKER, *["one"] * (words - 1)])
