"""`flow3r`: the command line; thin, imports lazily."""
