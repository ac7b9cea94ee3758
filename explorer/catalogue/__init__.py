"""The catalogue as people look at it: the map and its colours, single items, and gaps in the data.

Public: `colours`, `gaps`, `item`, `overviews`, `window`.
"""
