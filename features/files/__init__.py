"""Files of many formats as lazy tables.

Public: `audit_log`, `column_names`, `containers`, `conversions`, `copies`, `file_replacement`,
`folder_replacement`, `modes`, `readers`, `spreadsheets`.
"""
