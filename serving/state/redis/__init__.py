"""The store that several servers share.

Public: `backup`, `durability`, `items`, `store`, `users`.
"""
