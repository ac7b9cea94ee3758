"""Files as shops and data sets really have them, read through the command line."""
