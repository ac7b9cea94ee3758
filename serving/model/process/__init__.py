"""The model's process, and the messages between it and the server.

Public: `loader`, `starter`.
"""
