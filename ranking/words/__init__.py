"""Text search: BM25 over words, cosine over embeddings, exact names and ids.

Public: `item_words`, `live_words`, `text_match`, `word_index`.
"""
