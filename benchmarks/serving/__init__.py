"""The server under load: a load process beside a server process, and an echo service as the ceiling."""
