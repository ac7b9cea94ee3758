"""The report as a page: what it says in words, what it draws, and the examples that it shows.

Public: `charts`, `material`, `render`, `shortcuts`, `summary`.
"""
