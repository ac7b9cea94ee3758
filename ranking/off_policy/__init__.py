"""Off-policy estimates: what lists that were not shown would have earned, from lists that were."""
