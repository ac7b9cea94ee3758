"""Free text against items: BM25 over words, cosine over meaning, names and ids."""
