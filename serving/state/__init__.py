"""User state and item changes: contracts, implementations in SQLite and Redis, erasure and health.

Public: `copies`, `erasure`, `everything`, `health`, `histories`.
"""
