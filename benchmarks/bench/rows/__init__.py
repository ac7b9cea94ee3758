"""The rows of the table: each prepares its data, runs its workers in turns, and returns what it found."""
