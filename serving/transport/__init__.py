"""What every call passes before an RPC: TLS, API keys, deadlines, logging, errors.

Public: `api_keys`, `auth`, `call_interceptor`, `channel_options`, `reflection`, `tls`.
"""
