"""What keeps a served model good without a person: retraining behind a gate, and experiments on shoppers."""
