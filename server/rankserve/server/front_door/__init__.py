"""The OpenAI-compatible HTTP API: clients of OpenAI, vLLM or SGLang use RankServe by changing a base URL.

It has no rules of its own: a body becomes the gRPC API's message and passes `rpc.validation`, an error
becomes a gRPC status in `rpc.errors` and from that an HTTP one.
"""

from rankserve.server.front_door.application import front_door

__all__ = ["front_door"]
