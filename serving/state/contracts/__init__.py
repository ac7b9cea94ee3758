"""Protocols of the stores of user state and item changes.

Public: `item_changes`, `user_state`.
"""
