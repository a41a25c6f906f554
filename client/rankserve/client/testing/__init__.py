"""A RankServe server without a scheduler, a ranker or an LLM, for the tests of code that calls one."""

from rankserve.client.testing._server import FakeServer

__all__ = ["FakeServer"]
