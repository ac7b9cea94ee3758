"""Protos of package shelfwise."""
