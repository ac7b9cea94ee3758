"""RecTools' SASRec on this project's data and split."""
