"""What is timed, one process each: this project (`own_*`), or another one, which imports nothing of this."""
