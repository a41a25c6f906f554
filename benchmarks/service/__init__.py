"""What the service costs, beside a bare gRPC server on the same machine: `python -m benchmarks.service`."""
