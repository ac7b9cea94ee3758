"""Candidate features, one definition for training and serving."""
