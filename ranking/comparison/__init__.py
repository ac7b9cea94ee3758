"""Two systems on the same queries: tests of metrics, likeness of lists, guards, the gate of publish.

Public: `bundles`, `changed`, `command`, `compare`, `gate`, `guards`, `judge`, `measured`, `operand`, `page`,
`predictions`, `sides`, `table`, `window`.
"""
