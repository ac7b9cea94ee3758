"""The steps of `shelfwise run`: train, refit, publish, evaluate.

Public: `prepared`, `publish`, `refit`, `validation`.
"""
