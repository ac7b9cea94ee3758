"""`make bench`: this project beside others, work by work, in one run on one machine."""
