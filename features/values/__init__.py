"""Values as shops write them: numbers, times, types of attributes, names of columns and of kinds."""
