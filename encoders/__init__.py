"""Texts and histories become vectors: text encoder, item tower, user tower and their training."""
