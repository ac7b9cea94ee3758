"""Side-by-side measurements; each is one command, prints a table and writes JSON."""
