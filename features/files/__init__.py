"""Files of many formats as lazy tables.

Public: `audit_log`, `containers`, `conversions`, `copies`, `modes`, `readers`, `replacing`, `spreadsheets`.
"""
