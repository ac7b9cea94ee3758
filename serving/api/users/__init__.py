"""RPCs about a user's stored data.

Public: `export`.
"""
