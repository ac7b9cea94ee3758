"""Two systems on the same queries: tests of metrics, likeness of lists, guards, the gate of publish.

Public: `compare`, `gate`, `judge`, `predictions`, `window`.
"""
