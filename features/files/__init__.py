"""Files of many formats as lazy tables."""
