"""Token files for tests."""

import hashlib
from pathlib import Path

ADMIN = "admin-correct-horse-battery"
SUBMIT = "submit-correct-horse-battery"
OBSERVE = "observe-correct-horse-battery"
TENANT_A = "tenant-a-correct-horse-battery"
TENANT_B = "tenant-b-correct-horse-battery"
WRONG = "wrong-correct-horse-battery"
ALL = (ADMIN, SUBMIT, OBSERVE, TENANT_A, TENANT_B, WRONG)

Metadata = tuple[tuple[str, str], ...]

_ROLES = {ADMIN: "admin", SUBMIT: "submit", OBSERVE: "observe", TENANT_A: "submit", TENANT_B: "submit"}
_TENANTS = {TENANT_A: ("a",), TENANT_B: ("b", "b2")}


def bearer(token: str | None) -> Metadata:
    return () if token is None else (("authorization", f"Bearer {token}"),)


def write_tokens(path: Path, *tokens: str, more: str = "") -> Path:
    """A token file with these tokens, put there whole."""
    tables = []
    for token in tokens:
        lines = [
            "[[token]]",
            f'name = "{token.partition("-correct")[0]}"',
            f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"',
            f'roles = ["{_ROLES[token]}"]',
        ]
        if token in _TENANTS:
            lines.append(f"tenants = {list(_TENANTS[token])}")
        tables.append("\n".join(lines))
    beside = path.with_suffix(".new")
    beside.write_text("\n\n".join([*tables, more]))
    beside.chmod(0o600)
    return beside.rename(path)
