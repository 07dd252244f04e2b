"""A long run of real schedulers, workers and Redis, with a fault every few seconds."""
