"""The file that says which tokens there are.

Either plain text, one token that may do everything for everybody::

    correct-horse-battery-staple

or, where the name ends in `.toml`, any number of tokens, and limits of tenants::

    [[token]]
    name = "search-backend"                # for logs
    sha256 = "9f86d08...0f00a08"           # of the token; or token = "..."
    roles = ["submit"]                     # submit, observe, admin
    tenants = ["search"]                   # absent: everybody's

    [[tenant]]
    name = "search"
    max_waiting = 1000
    max_waiting_bytes = 8388608
"""

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rankserve.server.access.principal import Principal, Role
from rankserve.server.admission import WaitingLimits

MIN_TOKEN_CHARACTERS = 16
# What an `authorization` header can carry.
_TOKEN = re.compile(rf"[\x21-\x7e](?:[\x20-\x7e]{{{MIN_TOKEN_CHARACTERS - 2},1022}})[\x21-\x7e]")
_TOKEN_RULE = f"must be {MIN_TOKEN_CHARACTERS} to 1024 printable ASCII characters on one line"
_TENANT_CHARACTERS = 128


class TokenFileError(ValueError):
    """A token file that cannot be used. The message says where and why, and holds no token."""


@dataclass(slots=True, frozen=True)
class Holder:
    """A token's SHA-256, and who has the token."""

    sha256: bytes = field(repr=False)
    principal: Principal


@dataclass(slots=True, frozen=True)
class TokenFile:
    """What a token file says.

    Attributes:
        holders: at least one.
        tenants: limits by tenant; a part that is None was not given.
    """

    holders: tuple[Holder, ...]
    tenants: Mapping[str, WaitingLimits]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


_TableT = TypeVar("_TableT", bound=_Table)


class _Token(_Table):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$")] | None = Field(None, repr=False)
    token: str | None = Field(None, repr=False)
    roles: list[Role] = Field(min_length=1)
    tenants: list[Annotated[str, Field(max_length=_TENANT_CHARACTERS)]] | None = Field(None, min_length=1)


class _Tenant(_Table):
    name: str = Field(max_length=_TENANT_CHARACTERS)
    max_waiting: int | None = Field(None, ge=0)
    max_waiting_bytes: int | None = Field(None, ge=0)


def read_token_file(path: Path) -> TokenFile:
    """Reads and checks a token file.

    Raises:
        TokenFileError: it is unreadable, or not as it must be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenFileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TokenFileError(f"{path}: is not UTF-8 text") from None
    if path.suffix.lower() == ".toml":
        return _from_toml(path, text)
    token = text.strip()
    if len(token) < MIN_TOKEN_CHARACTERS:
        raise TokenFileError(f"{path}: a token must be at least {MIN_TOKEN_CHARACTERS} characters")
    if not _TOKEN.fullmatch(token):
        raise TokenFileError(f"{path}: the token {_TOKEN_RULE}; name a file with several tokens *.toml")
    return TokenFile((Holder(_digest(token), Principal("token-file", frozenset(Role))),), {})


def _from_toml(path: Path, text: str) -> TokenFile:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Where it is broken, and nothing else of the message: that may quote the file.
        place = re.search(r"\(at [a-z0-9 ,]+\)$", str(error))
        raise TokenFileError(f"{path}: is not valid TOML {place.group() if place else ''}".rstrip()) from None
    if unknown := content.keys() - {"token", "tenant"}:
        raise TokenFileError(
            f"{path}: holds {len(unknown)} settings outside of [[token]] and [[tenant]] tables"
        )
    tokens = [_token(path, number, table) for number, table in _tables(path, content, "token")]
    tenants = [_tenant(path, number, table) for number, table in _tables(path, content, "tenant")]
    if not tokens:
        raise TokenFileError(f"{path}: holds no [[token]], so nobody could call")
    _check_distinct(path, "[[token]] name", (token.name for token, _ in tokens))
    _check_distinct(path, "[[tenant]] name", (tenant.name for tenant in tenants))
    if len({holder.sha256 for _, holder in tokens}) < len(tokens):
        raise TokenFileError(f"{path}: two [[token]] tables hold the same token; give each its own")
    limits = {tenant.name: WaitingLimits(tenant.max_waiting, tenant.max_waiting_bytes) for tenant in tenants}
    return TokenFile(tuple(holder for _, holder in tokens), limits)


def _tables(path: Path, content: dict[str, Any], kind: str) -> Iterable[tuple[int, Any]]:
    tables = content.get(kind, [])
    if not isinstance(tables, list):
        raise TokenFileError(f"{path}: write [[{kind}]] with two brackets: there may be several")
    return enumerate(tables, start=1)


def _token(path: Path, number: int, table: Any) -> tuple[_Token, Holder]:
    where = f"{path}: [[token]] {number}"
    token = _checked(where, _Token, table)
    where = f"{where} ({token.name})"
    if (token.token is None) == (token.sha256 is None):
        raise TokenFileError(f"{where}: give either sha256 or token")
    if token.token is not None and not _TOKEN.fullmatch(token.token):
        raise TokenFileError(f"{where}: token {_TOKEN_RULE}")
    if Role.ADMIN in token.roles and token.tenants is not None:
        raise TokenFileError(f'{where}: role "admin" is for every tenant; leave tenants out')
    digest = bytes.fromhex(token.sha256) if token.sha256 is not None else _digest(token.token or "")
    tenants = None if token.tenants is None else frozenset(token.tenants)
    return token, Holder(digest, Principal(token.name, frozenset(token.roles), tenants))


def _tenant(path: Path, number: int, table: Any) -> _Tenant:
    return _checked(f"{path}: [[tenant]] {number}", _Tenant, table)


def _checked(where: str, kind: type[_TableT], table: Any) -> _TableT:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        known = ", ".join(kind.model_fields)
        setting = str(first["loc"][0]) if first["loc"] else ""
        # A setting that nobody knows could be a token in the wrong place: it is not repeated.
        if setting not in kind.model_fields:
            raise TokenFileError(f"{where}: there may be only {known}") from None
        raise TokenFileError(
            f"{where}: {setting}: {_problem(setting, first['type'], first['msg'])}"
        ) from None


def _problem(setting: str, kind: str, message: str) -> str:
    if kind == "missing":
        return "is missing"
    if setting == "sha256":
        return "must be the 64 hexadecimal digits of the token's SHA-256"
    if setting == "name" and kind == "string_pattern_mismatch":
        return "must be 1 to 64 characters of A-Z a-z 0-9 . _ : -"
    return message[0].lower() + message[1:]


def _check_distinct(path: Path, what: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise TokenFileError(f"{path}: {what} {name!r} is there {count} times; each may be once")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
