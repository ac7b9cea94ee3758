"""Vector indexes, filters applied inside their searches, and rank fusion.

Public: `added_index`, `device_index`, `exact`, `faiss_index`, `faiss_masks`, `fusion`, `index_choice`,
`limits`, `nearest`, `searcher`, `source_indexes`, `subset_index`, `unavailable`.
"""
