"""The shop of the storefront view: its server, a visit as an address, the shelf, and what a click changes."""
