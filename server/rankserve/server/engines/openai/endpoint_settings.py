"""Which endpoints there are, and how each is to be used: from options, or from a file.

The file, TOML, is for several, and is read again when it changes::

    [[endpoint]]
    url = "http://gpu-1:8000/v1"
    model = "llama-3-8b"           # absent: the first that it serves
    weight = 2.0                   # takes twice as much as one of weight 1
    max_sequences = 64             # most requests in flight; absent: learned
    dialect = "vllm"               # absent: what it says it is
    priority = "lower-first"       # its own queue orders by priority; absent: it does not
    api_key_file = "gpu-1.key"
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import httpx2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

MOST_ENDPOINTS = 1000

Priority = Literal["off", "lower-first", "higher-first"]
DialectName = Literal["vllm", "sglang", "llama.cpp", "openai"]


class EndpointError(ValueError):
    """Endpoints that cannot be. The message says where and why, and holds no key."""


def _checked_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    port = parsed.port if parsed.port is not None else 80
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < port < 1 << 16:
        raise ValueError("must be like http://127.0.0.1:8000/v1")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("must hold no user, password or query: keys are read from files")
    return url.rstrip("/")


class EndpointSettings(BaseModel):
    """One endpoint. Two of the same URL are the same."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    url: Annotated[str, AfterValidator(_checked_url)]
    model: str = Field(default="", max_length=256)
    weight: float = Field(default=1.0, gt=0, le=1000)
    max_sequences: int | None = Field(default=None, ge=1, le=100_000)
    dialect: DialectName | None = None
    priority: Priority = "off"
    api_key_file: Path | None = None

    def api_key(self) -> str:
        """Raises EndpointError if its file cannot be read or holds no key."""
        if self.api_key_file is None:
            return ""
        try:
            key = self.api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise EndpointError(f"{self.api_key_file}: cannot be read ({type(error).__name__})") from None
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise EndpointError(f"{self.api_key_file}: must hold one API key")
        return key


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: list[EndpointSettings] = Field(min_length=1, max_length=MOST_ENDPOINTS)


def read_endpoints(path: Path) -> tuple[EndpointSettings, ...]:
    """The endpoints of a file. Raises EndpointError."""
    try:
        found = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).endpoint
    except OSError as error:
        raise EndpointError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise EndpointError(f"{path}: {_problems(error)}") from None
    except (ValueError, RecursionError) as error:
        raise EndpointError(f"{path}: not TOML: {error}") from None
    twice = {endpoint.url for endpoint in found if sum(other.url == endpoint.url for other in found) > 1}
    if twice:
        raise EndpointError(f"{path}: there twice: {', '.join(sorted(twice))}")
    return tuple(
        endpoint
        if endpoint.api_key_file is None
        else endpoint.model_copy(update={"api_key_file": path.parent / endpoint.api_key_file})
        for endpoint in found
    )


def endpoints_of(urls: str, **others: object) -> tuple[EndpointSettings, ...]:
    """The endpoints of `--engine-url`: one URL, or several with commas between. Raises EndpointError."""
    found = dict.fromkeys(url.strip() for url in urls.split(",") if url.strip())
    try:
        return tuple(EndpointSettings.model_validate({"url": url, **others}) for url in found)
    except ValidationError as error:
        raise EndpointError(f"--engine-url: {_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()
    )
