"""Values as shops write them: numbers, times and types of attributes."""
