"""Apps of Celery whose messages are not the same each time."""

from itertools import count

from celery import Celery, Task
from celery.app.amqp import AMQP
from celery.beat import BeatLazyFunc
from celery.schedules import crontab

BROKER = "redis://127.0.0.1:1/0"
called = []


def new_app(name, kind=Celery, **settings):
    app = kind(
        name,
        broker=BROKER,
        backend=BROKER,
        set_as_current=False,
        amqp=settings.pop("amqp", None),
        changes={"timezone": "Asia/Kathmandu", **settings},
    )
    app.conf.beat_schedule = {"a": {"task": "anew.a", "schedule": EVERY}}
    return app


EVERY = crontab(minute="*/5")
app = new_app("app")


@app.task(shared=False, name="anew.plain")
def plain(*args, **kwargs): ...


class Tenant(Task):
    def apply_async(self, args=None, kwargs=None, task_id=None, **options):
        called.append(task_id)
        options["headers"]["tenant"] = (
            f"{task_id} at {options['headers']['beatd_slot']}"
        )
        return super().apply_async(args, kwargs, task_id=task_id, **options)


class Raises(Task):
    def apply_async(self, *args, **options):
        raise RuntimeError("no tenant")


class Exits(Task):
    def apply_async(self, *args, **options):
        raise SystemExit("no tenant")


class Twice(Task):
    def apply_async(self, *args, **options):
        super().apply_async(*args, **options)
        return super().apply_async(*args, **options)


class Nothing(Task):
    def apply_async(self, *args, **options):
        return None


@app.task(shared=False, name="anew.tenant", base=Tenant, queue="tenants")
def tenant(): ...


@app.task(shared=False, name="anew.raises", base=Raises)
def raises(): ...


@app.task(shared=False, name="anew.exits", base=Exits)
def exits(): ...


@app.task(shared=False, name="anew.twice", base=Twice)
def twice(): ...


@app.task(shared=False, name="anew.nothing", base=Nothing)
def nothing(): ...


number = count(1)
app.conf.beat_schedule = {
    name: {"schedule": EVERY, **entry}
    for name, entry in {
        "plain": {"task": "anew.plain", "args": [1]},
        "tenant": {"task": "anew.tenant"},
        "raises": {"task": "anew.raises"},
        "exits": {"task": "anew.exits"},
        "twice": {"task": "anew.twice"},
        "nothing": {"task": "anew.nothing"},
        "lazy": {"task": "anew.plain", "args": [BeatLazyFunc(number.__next__)]},
        "lazy_raises": {
            "task": "anew.plain",
            "kwargs": {"x": BeatLazyFunc(lambda: 1 / 0)},
        },
        "slot": {"task": "anew.plain", "slot_argument": "at"},
    }.items()
}


def by_function(name, args, kwargs, options, task=None, **_): ...


class OwnApp(Celery):
    def send_task(self, *args, **options):
        return super().send_task(*args, **options)


class OwnAMQP(AMQP):
    def as_task_v2(self, *args, **options):
        return super().as_task_v2(*args, **options)


by_router = new_app("by_router", task_routes=[{"x": "y"}, by_function])
by_send_task = new_app("by_send_task", OwnApp)
by_protocol = new_app("by_protocol", task_protocol=1)
by_amqp = new_app("by_amqp", amqp=OwnAMQP)
WHY = {
    "by_router": "task_routes has anew.by_function, which answers each call",
    "by_send_task": "anew.OwnApp.send_task is not Celery's own",
    "by_protocol": "task_protocol = 1",
    "by_amqp": "anew.OwnAMQP.as_task_v2 is not Celery's own",
}
by_connection = new_app("by_connection")
by_connection.conf.beat_schedule["a"]["options"] = {"connection": object()}
