"""Commands at the terminal that ask a server, or show what it can do."""
