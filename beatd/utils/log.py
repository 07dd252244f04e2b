"""Loggers of tasks, where Celery has them."""

from beatd.logs import get_task_logger

__all__ = ["get_task_logger"]
