"""The catalogue: attributes, filter expressions, order, and changes while served.

Public: `attribute_codes`, `filter_clauses`, `filter_language`, `item_order`, `item_values`, `live_catalogue`.
"""
