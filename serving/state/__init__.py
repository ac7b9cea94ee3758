"""User state and item changes: contracts, SQLite and Redis behind them, erasure and health.

Public: `erasure`, `health`, `histories`.
"""
