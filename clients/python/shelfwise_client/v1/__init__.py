"""Package `shelfwise.v1`: messages and stubs that `make proto` generates."""
