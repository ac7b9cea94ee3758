"""What every call passes before an RPC: TLS, API keys, deadlines, logging, errors."""
