"""Offline evaluation: protocol, metrics, slices, significance and the report.

Public: `cold_items`, `diagnostics`, `evaluation`, `list_overlap`, `list_providers`, `many_tests`,
`metrics`, `offline`, `query_table`, `report`, `significance`, `slices`, `stage_recall`, `summaries`.
"""
