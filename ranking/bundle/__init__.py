"""The bundle, its manifest and indexes, the store of versions, and the export of its text encoder.

Public: `bundle`, `catalogue_file`, `collections`, `device_memory`, `host_memory`, `manifest`,
`rollback`, `store`.
"""
