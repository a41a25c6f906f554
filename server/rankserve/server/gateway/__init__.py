"""In front of an engine with an OpenAI-compatible API: scores prompts, and writes into requests their order.

As a middleware within the engine's own server, or as a proxy.
"""
