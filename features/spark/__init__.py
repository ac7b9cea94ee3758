"""`prepare` on Spark: its workers judge the rows by the same polars rules, it filters, counts and sorts them.

Public: `engine`, `session`, `tables`.
"""
