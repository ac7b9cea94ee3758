"""Time and memory of every step of the pipeline as a shop's events grow, each step under a memory limit.

Public: `shop` generates the shop, `limit` holds a process under a limit, `steps` are what is measured,
`runner` measures them, `table` fits the exponents and writes tables and plots.
"""
