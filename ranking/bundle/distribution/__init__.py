"""Copies of a store in an object store: pushed from where models are made, fetched where they are served.

Nothing imports it: its functions are those of the commands `push` and `fetch`.
"""
