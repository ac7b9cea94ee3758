"""Compiled and vectorised primitives without any knowledge of recommendation."""
