"""Shared by all parts of the server: errors, call context, polling, threads.

Public: `call_context`, `errors`, `event_kinds`, `event_loop`, `interpreter`, `list_defaults`, `parent`,
`poller`, `threads`, `turns`.
"""
