"""Settings in Celery's old spelling."""

import os
from datetime import timedelta

CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "Europe/Berlin"
CELERY_INCLUDE = ["article.tasks"]

CELERYBEAT_SCHEDULER = "celery.beat:PersistentScheduler"
CELERYBEAT_SCHEDULE_FILENAME = "log/celery.db"
CELERYBEAT_SCHEDULE = {
    "add-every-2-seconds": {
        "task": "article.tasks.add",
        "schedule": timedelta(seconds=2),
        "args": (2, 3),
    },
}

BROKER_URL = os.environ.get("ARTICLE_REDIS", "redis://127.0.0.1:6379/0")
BROKER_TRANSPORT_OPTIONS = {"fanout_prefix": True}

CELERY_RESULT_BACKEND = os.environ.get("ARTICLE_REDIS", "redis://127.0.0.1:6379/0")
CELERY_RESULT_SERIALIZER = "json"
CELERY_RESULT_PERSISTENT = True
CELERY_TASK_RESULT_EXPIRES = 3600

CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_TIME_LIMIT = 60
CELERY_TASK_IGNORE_RESULT = False

CELERYD_CONCURRENCY = 2
CELERYD_MAX_TASKS_PER_CHILD = 100
CELERY_REDIS_MAX_CONNECTIONS = 20
