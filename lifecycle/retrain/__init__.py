"""A night without a person: new events become a model that is measured, published and watched."""
