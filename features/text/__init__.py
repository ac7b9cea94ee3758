"""Texts of items: title, text template, fields and words.

Public: `item_text`, `text_fields`, `titles`, `words`.
"""
