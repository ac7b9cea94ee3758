"""The protocols that every store of user state and item changes implements.

Public: `item_changes`, `user_state`.
"""
