"""`inspect`: what files seem to be, and the command that reads them."""
