"""Why an item is in a list, or is not: what each stage did with it, and what would change it."""
