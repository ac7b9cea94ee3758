"""The prepared dataset: schema, splits, histories, statistics and demand."""
