"""What operators look at over HTTP: metrics, probes and the live page."""
