"""Vector indexes that candidate sources search, the limits inside them, and the fusion of proposals."""
