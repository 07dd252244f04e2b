"""Jobs run in child processes: the `prefork` pool, and all that belongs to it alone."""
