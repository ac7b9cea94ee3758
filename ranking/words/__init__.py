"""Free text against items: BM25 over words, cosine over meaning, names and ids.

Public: `item_words`, `live_words`, `text_match`, `word_index`.
"""
