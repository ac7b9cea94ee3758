"""Linear models of behaviour: co-purchase factors and affinity."""
