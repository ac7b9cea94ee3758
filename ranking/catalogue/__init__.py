"""What the items of a catalogue are: attributes, filter expressions, order, changes while served.

Public: `attribute_codes`, `filter_language`, `item_order`, `item_values`, `live_catalogue`.
"""
