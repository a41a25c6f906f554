"""Whose token it is, by a file that may change while the server runs."""

import hashlib
import hmac
from pathlib import Path

import structlog

from rankserve.server.access.principal import Principal
from rankserve.server.access.token_file import TokenFile, TokenFileError, read_token_file
from rankserve.server.admission import WaitingLimits
from rankserve.server.watched_files import WatchedFiles, warn_if_others_read

log = structlog.get_logger(__name__)


class TokenStore:
    """The tokens of a token file.

    Args:
        path: see `token_file`.
        default_limits: of tenants for which the file gives none.

    Raises:
        TokenFileError: the file cannot be used.
    """

    def __init__(self, path: Path, default_limits: WaitingLimits | None = None) -> None:
        self._path = path
        self._default_limits = default_limits or WaitingLimits()
        self._watched = WatchedFiles(path)
        self._watched.changed()
        self._take(read_token_file(path))

    def find(self, token: str) -> Principal | None:
        """Who has this token; None: nobody.

        Takes as long for a wrong token as for a right one, whichever it is.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = None
        for holder in self._content.holders:
            if hmac.compare_digest(holder.sha256, digest):
                found = holder.principal
        return found

    def tenant_limits(self, tenant: str) -> WaitingLimits:
        """What of a tenant may wait."""
        given = self._content.tenants.get(tenant)
        default = self._default_limits
        if given is None:
            return default
        return WaitingLimits(
            requests=default.requests if given.requests is None else given.requests,
            size_bytes=default.size_bytes if given.size_bytes is None else given.size_bytes,
        )

    def reload(self) -> bool:
        """Reads the file again; returns False, and keeps the tokens there are, if it cannot be used."""
        try:
            content = read_token_file(self._path)
        except TokenFileError as error:
            log.error("token_file_unusable", problem=str(error), effect="the tokens before stay valid")
            return False
        self._take(content)
        log.info("token_file_loaded", tokens=[holder.principal.name for holder in content.holders])
        return True

    async def watch(self) -> None:
        """Reads the file again whenever it changes, within a second, until it is cancelled."""
        await self._watched.watch(self.reload)

    def _take(self, content: TokenFile) -> None:
        self._content = content
        warn_if_others_read(
            self._path,
            lambda mode: log.warning("token_file_readable_by_others", mode=mode, path=str(self._path)),
        )
