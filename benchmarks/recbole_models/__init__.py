"""RecBole's models on this project's data and split."""
