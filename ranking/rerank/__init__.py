"""Re-ranking of scored candidates: diversity (MMR) and the rules of the shop.

Public: `rules`, `slate`.
"""
