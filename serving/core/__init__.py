"""What every part of the server uses: errors, call context, polling, threads.

Public: `call_context`, `errors`, `event_kinds`, `event_loop`, `interpreter`, `poller`, `threads`.
"""
