"""Item tower and user tower, as trained and as served.

Public: `item_tower`, `sequences`, `towers`.
"""
