"""The explorer: pages in a browser that show a bundle, its lists and its evaluation."""
