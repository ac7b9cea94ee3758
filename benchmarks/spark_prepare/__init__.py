"""`prepare` by polars and by Spark on one machine: equality, time and memory."""
