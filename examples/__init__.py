"""Data to try things out on, and what is made of it."""
