"""Celery's tests that do not measure a worker, and why."""

LEFT_OUT = {
    "test_backend.py": "needs an account of Azure",
    "test_backend_leak_in_fixture_teardown.py": "counts sockets of embedded workers",
    "test_mem_leak_in_exception_handling.py": "calls are eager: no worker takes part",
    "test_security.py": "expected to fail; its message ends a worker of Celery's",
}
"""Modules that are not run."""

EXPECTED = {
    "test_inspect.py::test_Inspect::test_active": "acknowledged after the run, unless"
    " task_acks_late is off; Celery's default is before it",
    "test_inspect.py::test_Inspect::test_query_task": "the same",
    "test_inspect.py::test_Inspect::test_conf": "wants deprecated_settings, a field of"
    " Celery's own settings object that lies among the settings",
}
"""Tests that a worker of Celery's passes and beatd's does not, each with its reason."""
