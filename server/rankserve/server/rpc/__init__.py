"""The gRPC surface: servicers, validation, error table, authentication. No scheduling policy."""
