"""Raw files become a validated dataset: ingestion, catalogue, splits, histories, candidate features."""
