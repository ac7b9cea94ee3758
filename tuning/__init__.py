"""The search for better settings: the search space, the study of trials, and the winner."""
