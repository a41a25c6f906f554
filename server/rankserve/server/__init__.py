"""The gRPC server: scheduling, engines, ranking and the RPCs around them."""
