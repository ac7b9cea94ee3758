"""Files of many formats as lazy tables.

Public: `audit_log`, `containers`, `conversions`, `copies`, `file_replacement`, `folder_replacement`, `modes`,
`readers`, `spreadsheets`.
"""
