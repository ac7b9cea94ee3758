"""The search for better settings (search space, study of trials, winner), and runs of several seeds."""
