"""What is read of an item: title, text template, fields and words."""
