"""Prometheus metrics, and how well the ranker orders what finishes."""
