"""The gRPC service: server process, RPCs, load policy, served model and state."""
