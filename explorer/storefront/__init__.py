"""The shop of the storefront view: its server, a visit as an address, the shelf, and what a click changes.

Public: `shelf`, `shop`, `shop_server` and `visit`.
"""
