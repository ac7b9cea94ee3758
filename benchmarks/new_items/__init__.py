"""New items in a shop: the last weeks of a dataset replayed against servers of its earlier bundle."""
