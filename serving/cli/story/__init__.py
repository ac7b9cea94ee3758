"""The scenes of `shelfwise demo`, each computed from a finished run while it is shown.

Public: `erasure`, `measured`, `product`, `screens`, `search`, `server`, `shop`, `shoppers`, `without_text`.
"""
