"""Offline evaluation: protocol, metrics, slices, significance and the report."""
