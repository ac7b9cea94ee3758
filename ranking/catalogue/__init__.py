"""What the items of a catalogue are: attributes, filter expressions, order, changes while served."""
