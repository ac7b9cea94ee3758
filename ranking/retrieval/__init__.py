"""Vector indexes that candidate sources search, the limits inside them, and the fusion of proposals.

Public: `added_index`, `device_index`, `faiss_index`, `fusion`, `index_choice`, `limits`, `nearest`,
`searcher`, `source_indexes`, `subset_index`.
"""
