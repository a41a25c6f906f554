"""Requests that fill a server's slots, so that others wait for as long as a test wants."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from support.messages import inference
from support.server_process import Connection
from support.submit_stream import SubmitStream

_names = count()


@asynccontextmanager
async def occupied(connection: Connection) -> AsyncIterator[SubmitStream]:
    """Every slot is taken until the block ends, or the stream it yields is lost."""
    slots = (await connection.stats()).max_sequences
    ids = [f"occupant-{next(_names)}" for _ in range(slots)]
    async with SubmitStream(connection.scheduler) as stream:
        await stream.send(*(inference(request_id, output=8000) for request_id in ids))
        await stream.until_all("tokens", ids)
        yield stream
