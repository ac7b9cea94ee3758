"""Terminal commands that call a server, export its state, or demonstrate it.

Public: `connection`, `export_events`.
"""
