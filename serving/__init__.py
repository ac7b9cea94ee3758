"""Lists reach the shop: gRPC service, user state, server process and client."""
