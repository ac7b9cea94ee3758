"""Why an item is in a list, or is not: what each stage did with it, what moved its score, what would change it."""
