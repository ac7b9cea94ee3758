"""What is looked at after a publication: versions of servers, their metrics, and clicks.

Public: `clicks`, `guards`, `metrics`, `servers`.
"""
