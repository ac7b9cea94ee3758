"""Offline evaluation: protocol, metrics, slices, significance and the report.

Public: `evaluation`, `losses`, `offline`, `query_table`, `report`, `stage_recall`.
"""
