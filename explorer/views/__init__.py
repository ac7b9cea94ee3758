"""The views of the explorer, a module each with its pages in `PAGES`; `explorer.registry` names them."""
