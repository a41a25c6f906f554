"""A simulated LLM with continuous batching: step times from measured kernels, a KV cache that can run out."""
