"""Engines: what runs the LLM. `contract` says what one must do; `simulated` is the built-in one."""
