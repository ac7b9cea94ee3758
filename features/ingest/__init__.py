"""Validation of raw tables: columns, types, duplicates, rejects.

Public: `cleaning`, `columns`, `event_filters`, `event_readings`, `events`, `exclusions`, `id_lists`,
`id_matching`, `items`, `long_form`, `nested`, `privacy`, `raw_tables`, `rejects`, `required`, `samples`.
"""
