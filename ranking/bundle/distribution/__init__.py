"""Copies of a store in an object store: pushed from where models are made, fetched where they are served.

Public: `fetch`, `push`.
"""
