"""What a token file may say, and what is said of one that is wrong."""

import hashlib
from pathlib import Path

import pytest

from rankserve.server.access.principal import Principal, Role
from rankserve.server.access.token_file import TokenFileError, read_token_file
from rankserve.server.admission import WaitingLimits

SECRET = "correct-horse-battery-staple"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    return path


def problem(path: Path) -> str:
    with pytest.raises(TokenFileError) as refused:
        read_token_file(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert SECRET not in message
    assert DIGEST not in message
    # Nothing is chained that a traceback would print.
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return message


def test_a_plain_file_is_one_token_for_everything(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"  {SECRET}\n")
    [holder] = read_token_file(path).holders
    assert holder.sha256.hex() == DIGEST
    assert holder.principal.roles == frozenset(Role)
    assert holder.principal.tenants is None


def test_a_toml_file_has_many(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        f"""
        [[token]]
        name = "backend"
        sha256 = "{DIGEST.upper()}"
        roles = ["submit", "observe"]
        tenants = ["search", ""]

        [[token]]
        name = "operator"
        token = "another-secret-altogether"
        roles = ["admin"]

        [[tenant]]
        name = "search"
        max_waiting = 10

        [[tenant]]
        name = "chat"
        max_waiting = 0
        max_waiting_bytes = 4096
        """,
    )
    file = read_token_file(path)
    assert [holder.principal for holder in file.holders] == [
        Principal("backend", frozenset({Role.SUBMIT, Role.OBSERVE}), frozenset({"search", ""})),
        Principal("operator", frozenset({Role.ADMIN})),
    ]
    assert file.holders[0].sha256.hex() == DIGEST
    assert file.tenants == {"search": WaitingLimits(10, None), "chat": WaitingLimits(0, 4096)}
    assert DIGEST not in repr(file)


def token(**changes: str) -> str:
    lines = {"name": '"backend"', "token": f'"{SECRET}"', "roles": '["submit"]', **changes}
    return "[[token]]\n" + "\n".join(f"{key} = {value}" for key, value in lines.items() if value) + "\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no [[token]]"),
        ("[[tenant]]\nname = 'a'", "holds no [[token]]"),
        (f"{SECRET}", "is not valid TOML"),
        (f'[[token]]\nname = "a"\ntoken = "{SECRET}', "is not valid TOML (at end of document)"),
        (f'[[token]]\nname = "a"\ntoken = {SECRET}', "(at line 3, column 9)"),
        (f'[token]\nname = "a"\ntoken = "{SECRET}"', "two brackets"),
        (f'token = ["{SECRET}"]', "[[token]] 1: there may be only name, sha256, token, roles, tenants"),
        (f'"{SECRET}" = 1\n{token()}', "1 settings outside of [[token]]"),
        (token(name=""), "[[token]] 1: name: is missing"),
        (token(name='"a b"'), "name: must be 1 to 64 characters"),
        (token(name='""'), "name: must be 1 to 64 characters"),
        (token(roles=""), "roles: is missing"),
        (token(roles="[]"), "roles: list should have at least 1 item"),
        (token(roles=f'["{SECRET}"]'), "roles: input should be 'submit', 'observe' or 'admin'"),
        (token(tenants="[]"), "tenants: list should have at least 1 item"),
        (token(tenants='"search"'), "tenants: input should be a valid list"),
        (token(roles='["admin"]', tenants='["a"]'), '(backend): role "admin" is for every tenant'),
        (token(token=""), "(backend): give either sha256 or token"),
        (token(sha256=f'"{DIGEST}"'), "(backend): give either sha256 or token"),
        (token(token='"fifteen-letters"'), "(backend): token must be 16 to 1024 printable"),
        (token(token=f'"{SECRET} \\n{SECRET}"'), "(backend): token must be 16 to 1024 printable"),
        (token(token=f'"{SECRET}ä"'), "(backend): token must be 16 to 1024 printable"),
        (token(token="", sha256=f'"{DIGEST[1:]}"'), "sha256: must be the 64 hexadecimal digits"),
        (token(token="", sha256=f'"{SECRET}"'), "sha256: must be the 64 hexadecimal digits"),
        (token(**{f'"{SECRET}"': "1"}), "[[token]] 1: there may be only name"),
        (token() + token(), "[[token]] name 'backend' is there 2 times"),
        (token() + token(name='"other"'), "two [[token]] tables hold the same token"),
        (token() + token(name='"other"', token="", sha256=f'"{DIGEST}"'), "hold the same token"),
        (token() + "[[tenant]]\nmax_waiting = 1", "[[tenant]] 1: name: is missing"),
        (token() + "[[tenant]]\nname = 'a'\nmax_waiting = -1", "max_waiting: input should be greater than"),
        (token() + "[[tenant]]\nname = 'a'\nmax_wait = 1", "[[tenant]] 1: there may be only name, max_wait"),
        (token() + "[[tenant]]\nname = 'a'\n[[tenant]]\nname = 'a'", "[[tenant]] name 'a' is there 2 times"),
    ],
)
def test_what_is_wrong_is_said_without_the_token(tmp_path: Path, text: str, says: str) -> None:
    assert says in problem(toml(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hunter2", "at least 16 characters"),
        (b"", "at least 16 characters"),
        (f"{SECRET}\n{SECRET}\n".encode(), "name a file with several tokens *.toml"),
        (f"{SECRET}ä".encode(), "printable ASCII"),
        (SECRET.encode() + b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_plain_file_with_something_else(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    assert says in problem(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in problem(tmp_path / "token")
    assert "cannot be read: Is a directory" in problem(tmp_path)
