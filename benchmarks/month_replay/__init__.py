"""A month of a shop, replayed day by day through running servers, with a retraining every night."""
