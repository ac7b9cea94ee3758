"""Vector search by a Milvus that several servers share, behind the searcher's protocol.

Public: `collection`, `connection`, `entities`, `expressions`, `fields`, `loading`, `naming`, `pending`,
`reporting`, `searcher`, `status`, `writer`.
"""
