"""Item tower and user tower, as trained and as served."""
