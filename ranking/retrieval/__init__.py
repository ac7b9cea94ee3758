"""Candidate sources and the vector indexes that they search."""
