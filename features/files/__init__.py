"""Files of many formats as lazy tables.

Public: `containers`, `conversions`, `modes`, `readers`, `spreadsheets`.
"""
