"""Re-ranking of scored candidates: diversity (MMR) and merchandising rules.

Public: `rules`, `slate`.
"""
