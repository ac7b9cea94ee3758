"""The search for better settings: what is searched, the study that remembers trials, and the winner."""
