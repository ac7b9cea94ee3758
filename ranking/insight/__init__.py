"""Why an item is in a list, or is not: what each stage did with it, and what would change it.

A product that does not exist is added to a copy of the model, and its words are taken out one by one.

Public: `attribution`, `changes`, `explanation`, `history_effect`, `new_product`, `product_words`, `record`,
`scenario`, `words`.
"""
