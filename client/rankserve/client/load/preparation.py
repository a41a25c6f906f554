"""Workload records -> requests."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

from rankserve.client._types import ChatMessage, Request
from rankserve.client.load.options import LoadOptions
from rankserve.records.workload import WorkloadRecord


def prepare(workload: Sequence[WorkloadRecord], options: LoadOptions) -> list[WorkloadRecord]:
    """The records as they will be sent: without recorded lengths, or with room for all of them."""
    if options.max_tokens is not None:
        workload = [
            r if r.max_tokens is not None else replace(r, max_tokens=options.max_tokens) for r in workload
        ]
    if not options.replay:
        # Lengths of other answers say nothing about an answer that is not one of theirs.
        return [replace(r, output_tokens=None, input_tokens=None, other_lengths=()) for r in workload]
    # Or the server's default would cut recorded answers short. The same for all: a request's own length is
    # what nobody but an oracle may know.
    longest = max((record.output_tokens or 0 for record in workload), default=0) or None
    return [r if r.max_tokens is not None else replace(r, max_tokens=longest) for r in workload]


def to_request(request_id: str, record: WorkloadRecord, options: LoadOptions) -> Request:
    """The request that asks for a record."""
    return Request(
        prompt=None if options.chat else record.prompt,
        messages=(ChatMessage("user", record.prompt),) if options.chat else (),
        id=request_id,
        max_tokens=record.max_tokens,
        temperature=options.temperature,
        # So that runs of one workload under several policies ask the LLM for the same answers.
        seed=int.from_bytes(hashlib.blake2b(record.id.encode(), digest_size=6).digest()),
        priority=record.priority,
        tenant=record.tenant,
        deadline_ms=math.ceil((options.request_timeout_s or 0) * 1000),
        result_only=options.result_only,
        replay_output_tokens=record.output_tokens,
        replay_input_tokens=record.input_tokens,
    )
