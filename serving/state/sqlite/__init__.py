"""The embedded store of a single server."""
