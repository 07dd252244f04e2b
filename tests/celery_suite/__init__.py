"""Celery's own integration tests, with a worker in a process of its own.

`make celery-suite` runs them; `make test` does not.
"""
