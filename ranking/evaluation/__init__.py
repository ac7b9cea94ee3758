"""Offline evaluation: protocol, metrics, slices, significance and the report.

Public: `evaluation`, `offline`, `report`, `stage_recall`.
"""
