"""The durable record of accepted requests."""
