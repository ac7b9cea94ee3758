"""Runnable examples, and the data that they use."""
