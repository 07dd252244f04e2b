"""The app of Celery's integration tests, for a worker in a process of its own.

Its settings are those that the tests' own `conftest` gives to their worker.
"""

import os
from importlib import import_module

from celery.contrib.testing.app import TestApp

app = TestApp(
    enable_logging=True,
    set_as_current=True,
    config={
        "broker_url": os.environ["TEST_BROKER"],
        "result_backend": os.environ["TEST_BACKEND"],
        "result_extended": True,
        "task_create_missing_queues": False,
    },
)
app.set_default()
app.register_task(import_module("t.integration.tasks").ClassBasedAutoRetryTask())
