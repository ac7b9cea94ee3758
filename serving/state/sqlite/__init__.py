"""The embedded store of a single server.

Public: `backup`, `file`, `items`, `users`.
"""
