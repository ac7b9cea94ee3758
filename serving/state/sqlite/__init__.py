"""The embedded store of a single server.

Public: `file`, `items`, `users`.
"""
