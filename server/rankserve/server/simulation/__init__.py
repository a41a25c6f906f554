"""The scheduler and the simulated LLM in virtual time: step by step, and compiled from event to event."""
