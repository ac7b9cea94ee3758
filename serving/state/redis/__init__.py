"""The store that several servers share.

Public: `durability`, `items`, `store`, `users`.
"""
