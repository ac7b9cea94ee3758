"""The bundle, its manifest and indexes, the store of versions, and the export of its text encoder.

Public: `bundle`, `catalogue_file`, `device_memory`, `host_memory`, `manifest`, `store`.
"""
