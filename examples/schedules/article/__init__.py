"""A project as many Celery articles show it, unchanged but for one import line."""
