"""What `shelfwise demo` shows of a finished run, scene by scene, each computed while it is shown.

Public: `erasure`, `measured`, `product`, `screens`, `search`, `server`, `shop`, `shoppers`, `without_text`.
"""
