"""The main job: every step in order, each skipped when its inputs have not changed."""

from __future__ import annotations
