"""The text encoder: tokens, weights as trained and as served, precision, vectors of a catalogue.

Public: `catalogue_vectors`, `compiled_text_encoder`, `int8_text_encoder`, `item_texts`, `precision`,
`saved_encoder`, `text_encoder`, `tokens`, `trainable`.
"""
