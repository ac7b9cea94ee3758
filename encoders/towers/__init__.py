"""Item tower and user tower, as trained and as served.

Public: `drawn_events`, `item_tower`, `sequences`, `towers`.
"""
