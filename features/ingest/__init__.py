"""Raw tables become validated ones: columns, types, duplicates, rejects."""
