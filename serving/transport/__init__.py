"""Transport of calls: TLS, API keys, deadlines, logging, errors.

Public: `api_keys`, `audit`, `auth`, `call_interceptor`, `channel_options`, `port`, `reflection`.
"""
