"""From a command line to a typed configuration: overrides, the YAML files, and readable errors."""
