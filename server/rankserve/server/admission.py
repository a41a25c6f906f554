"""Whom the queue has room for: limits by count, by bytes and by tenant.

A request takes up room from its acceptance until it starts, and again after a preemption. It is counted here
alone, so requests that are being recorded count too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankserve.server.errors import QueueFull, QuotaExceeded
from rankserve.server.requests import RequestSpec


@dataclass(slots=True, frozen=True)
class WaitingLimits:
    """The most that may wait; None = no limit.

    Attributes:
        requests: how many.
        size_bytes: of their text, in UTF-8.
    """

    requests: int | None = None
    size_bytes: int | None = None


@dataclass(slots=True)
class _Usage:
    requests: int = 0
    size_bytes: int = 0


class Admission:
    """Counts what waits against the limits.

    Args:
        limits: of the whole queue.
        tenant_limits: of a tenant.
        free_slots: how many more the engine could run. A burst into an idle server finds the queue as long as
            its limit says, and those slots besides, though none of it has started yet.
        retry_after_s: how long to tell those to wait who are refused.
    """

    def __init__(
        self,
        limits: WaitingLimits,
        tenant_limits: Callable[[str], WaitingLimits],
        free_slots: Callable[[], int],
        retry_after_s: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._tenant_limits = tenant_limits
        self._free_slots = free_slots
        self._retry_after_s = retry_after_s
        self._all = _Usage()
        self._tenants: dict[str, _Usage] = {}

    @property
    def waiting(self) -> int:
        return self._all.requests

    @property
    def waiting_bytes(self) -> int:
        return self._all.size_bytes

    def check_tenant(self, spec: RequestSpec) -> None:
        """Raises QuotaExceeded if the request's tenant has its share waiting."""
        usage = self._tenants.get(spec.tenant)
        full = self._exceeds(usage or _Usage(), spec, self._tenant_limits(spec.tenant))
        if full:
            raise QuotaExceeded(spec.tenant, full, self._retry_after_s())

    def check_queue(self, spec: RequestSpec) -> None:
        """Raises QueueFull if the queue has no room for it."""
        full = self._exceeds(self._all, spec, self._limits)
        if full:
            raise QueueFull(full, self._retry_after_s())

    def has_room(self, spec: RequestSpec, *, without: Sequence[RequestSpec] = ()) -> bool:
        """Whether the queue would have room for it without some that wait."""
        usage = _Usage(
            self._all.requests - len(without),
            self._all.size_bytes - sum(gone.size_bytes for gone in without),
        )
        return not self._exceeds(usage, spec, self._limits)

    def enters(self, spec: RequestSpec) -> None:
        """A request begins to take up room."""
        usage = self._tenants.get(spec.tenant)
        if usage is None:
            usage = self._tenants[spec.tenant] = _Usage()
        for counted in (self._all, usage):
            counted.requests += 1
            counted.size_bytes += spec.size_bytes

    def leaves(self, spec: RequestSpec) -> None:
        """It takes up none any more."""
        usage = self._tenants[spec.tenant]
        for counted in (self._all, usage):
            counted.requests -= 1
            counted.size_bytes -= spec.size_bytes
        if not usage.requests:
            del self._tenants[spec.tenant]

    def _exceeds(self, usage: _Usage, spec: RequestSpec, limits: WaitingLimits) -> str:
        """Which limit one more request would exceed; empty if none."""
        if limits.requests is not None and usage.requests >= limits.requests + self._free_slots():
            return f"{usage.requests} requests wait"
        if limits.size_bytes is not None and usage.size_bytes + spec.size_bytes > limits.size_bytes:
            return f"{usage.size_bytes >> 10} KiB of prompts wait"
        return ""
