"""The text encoder: tokens, weights as trained and as served, precision, vectors of a catalogue."""
