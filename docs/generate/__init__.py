"""What the documentation takes from the code: the reference pages, and links into the repository."""
