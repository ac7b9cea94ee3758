"""All settings of shelfwise: typed schemas, and the YAML files with their values."""
