"""Every knob of shelfwise: typed schemas and the YAML files that fill them."""
