"""Apps of Celery whose entries send all kinds of messages."""

import datetime
import decimal
import json
import os
import re
import zlib

from celery import Celery, Task
from celery.app.amqp import AMQP
from celery.beat import BeatLazyFunc
from celery.schedules import crontab
from kombu import Exchange, Queue, binding, serialization
from kombu.common import Broadcast

BROKER = os.environ["BROKER"]
NAIVE = datetime.datetime.fromisoformat("2099-01-01T12:00:00")
EVERY = crontab(minute="*/5")


def new_app(name, **settings):
    return Celery(
        name,
        broker=BROKER,
        backend=BROKER.replace("/0", "/1"),
        set_as_current=False,
        changes=settings,
    )


def entries(**tasks):
    return {name: {"schedule": EVERY, **entry} for name, entry in tasks.items()}


serialization.register(
    "reversed",
    lambda value: json.dumps(value)[::-1],
    lambda text: json.loads(text[::-1]),
    content_type="application/x-reversed",
    content_encoding="utf-8",
)


# Options of tasks and of entries

plain = new_app("plain", timezone="Asia/Kathmandu")


@plain.task(
    name="full",
    queue="media",
    priority=6,
    expires=600,
    serializer="yaml",
    compression="zlib",
    time_limit=100,
    soft_time_limit=90.5,
    ignore_result=True,
    delivery_mode=1,
)
def full(*args, **kwargs): ...


@plain.task(name="bare")
def bare(a=1, b=2): ...


@plain.task(name="loose", typing=False)
def loose(): ...


@plain.task(name="reversed", serializer="reversed")
def reverse(*args): ...


@plain.task(name="by_key", exchange="shop", routing_key="shop.day")
def by_key(): ...


@plain.task(name="shadowed", shadow_name=lambda self, args, kwargs, options: "shade")
def shadowed(): ...


@plain.task(name="until", expires=NAIVE)
def until(): ...


class WithHeader(Task):
    """A base class that has its own header, and the id in it."""

    def apply_async(self, args=None, kwargs=None, task_id=None, **options):
        headers = {**(options.pop("headers", None) or {}), "tenant": "blue"}
        return super().apply_async(
            args, kwargs, task_id=task_id, headers=headers, **options
        )


@plain.task(name="headed", base=WithHeader, queue="headed")
def headed(x): ...


class Shape:
    """A type that JSON knows by its own method."""

    def __json__(self):
        return {"shape": "round"}

    def __repr__(self):
        return "Shape"


plain.conf.task_queues = [
    Queue("celery"),
    Queue("media", Exchange("media", "direct"), routing_key="media.key"),
    Queue("shops", Exchange("shop", "topic"), routing_key="shop.#"),
    Queue("short", Exchange("short"), routing_key="short", expires=900),
    Queue(
        "both",
        [
            binding(Exchange("left"), routing_key="a"),
            binding(Exchange("right", "topic"), routing_key="b.*"),
        ],
    ),
]
plain.conf.beat_schedule = entries(
    full={"task": "full", "args": (1, "two"), "kwargs": {"three": [3.5, None]}},
    full_again={"task": "full", "args": (2,)},
    full_third={"task": "full", "args": ("3", {"deep": ("er",)})},
    full_but={
        "task": "full",
        "options": {
            "queue": "celery",
            "priority": 0,
            "expires": 60,
            "serializer": "json",
            "compression": None,
            "ignore_result": False,
        },
    },
    full_never={"task": "full", "options": {"expires": None, "time_limit": None}},
    bare={"task": "bare", "args": [1]},
    bare_2={"task": "bare", "args": [2]},
    bare_3={"task": "bare", "args": [3], "kwargs": {"b": "x" * 3000}},
    bare_decimal={"task": "bare", "args": [decimal.Decimal("1.50")]},
    bare_date={"task": "bare", "args": [datetime.date(2026, 1, 2)]},
    bare_json={"task": "bare", "args": [Shape()]},
    bare_bytes={"task": "bare", "args": [b"\xff\x00"]},
    bare_text={"task": "bare", "args": ["100 % \u00fc \U0001f600 'quoted' \"twice\""]},
    bare_numbers={"task": "bare", "args": [[1e400, True], {1: 2}]},
    loose={"task": "loose", "args": (1, 2, 3)},
    reverse={"task": "reversed", "args": ("abc",)},
    reverse_2={"task": "reversed", "args": ("abd",)},
    reverse_3={"task": "reversed", "args": ("abe",)},
    pickled={"task": "bare", "options": {"serializer": "pickle"}},
    squeezed={"task": "bare", "options": {"compression": "bz2"}},
    not_there={"task": "bare", "options": {"serializer": "no-such"}},
    too_many={"task": "bare", "args": [1, 2, 3]},
    no_json={"task": "bare", "args": [object]},
    topic={"task": "bare", "options": {"queue": "shops", "routing_key": "shop.x.y"}},
    topic_default={"task": "bare", "options": {"queue": "shops"}},
    # By now Celery's beat has declared the exchange, and knows that it is a topic.
    by_key={"task": "by_key"},
    to_both={"task": "bare", "options": {"queue": "both"}},
    missing={"task": "bare", "options": {"queue": "made_by_the_way"}},
    own_queue={
        "task": "bare",
        "options": {"queue": Queue("own", Exchange("ownx", "topic"), "own.*")},
    },
    short={"task": "bare", "options": {"queue": "short"}},
    shadowed={"task": "shadowed"},
    shadow={"task": "bare", "options": {"shadow": "another name"}},
    until={"task": "until"},
    countdown={"task": "bare", "options": {"countdown": 90}},
    eta={
        "task": "bare",
        "options": {"eta": datetime.datetime(2099, 5, 1, tzinfo=datetime.UTC)},
    },
    eta_naive={"task": "bare", "options": {"eta": NAIVE}},
    expires_naive={
        "task": "bare",
        "options": {"expires": NAIVE},
    },
    expires_text={"task": "bare", "options": {"expires": "2099-05-01T00:00:00+02:00"}},
    expires_at={
        "task": "bare",
        "options": {"expires": datetime.datetime(2099, 5, 1, tzinfo=datetime.UTC)},
    },
    headed={"task": "headed", "args": [7]},
    headers={"task": "bare", "options": {"headers": {"x": 1, "when": "100 %"}}},
    own_id={"task": "bare", "options": {"task_id": "always-the-same"}},
    linked={
        "task": "bare",
        "options": {
            "link": bare.signature((9,), immutable=True),
            "link_error": [full.s()],
        },
    },
    property_={"task": "bare", "options": {"app_id": "shop", "retry": False}},
    described={"task": "bare", "options": {"argsrepr": "(hidden)"}},
    lazy={
        "task": "bare",
        "args": [BeatLazyFunc(lambda x: x + 1, 41)],
        "kwargs": {"b": BeatLazyFunc(str.upper, "lazy")},
    },
    unknown={"task": "of.another.project", "args": (1, 2), "kwargs": {"z": 1}},
    unknown_2={
        "task": "of.another.project",
        "options": {"priority": 9, "expires": 30.5, "queue": "media"},
    },
    stamped={
        "task": "bare",
        "options": {"stamped_headers": ["run"], "run": ["one"]},
    },
)


broadcasting = new_app(
    "broadcasting",
    task_queues=[Queue("celery"), Broadcast("everywhere")],
    beat_schedule=entries(
        to_all={"task": "bare", "options": {"queue": "everywhere"}},
    ),
)


# Routers

RULES = {
    "video.*": {"queue": "video", "priority": 3},
    "exact": "exactly",
    "topical.*": {"exchange": "media", "exchange_type": "topic", "routing_key": "a.b"},
    "timed": {"queue": "timed", "time_limit": 5},
}
ROUTED = {
    name.replace(".", "_"): {"task": name}
    for name in ("video.cut", "exact", "topical.x", "timed", "free")
}


class OldRouter:
    def route_for_task(self, task, args=None, kwargs=None):
        return {"queue": "old"} if task == "video.cut" else None


def by_function(name, args, kwargs, options, task=None, **_):
    if name == "exact":
        return {"queue": f"function-{(task and task.name) or 'unknown'}"}
    return None


class Instance:
    def __call__(self, name, args, kwargs, options, task=None):
        return "instance" if name == "timed" else None


instance = Instance()


def routed(name, routes, **settings):
    app = new_app(name, task_routes=routes, beat_schedule=entries(**ROUTED), **settings)

    @app.task(name="exact", shared=False)
    def exact(): ...

    return app


by_dict = routed("by_dict", RULES)
by_pattern = routed("by_pattern", ([(re.compile("vid.+"), {"queue": "pattern"})],))
by_text = routed("by_text", "sends.OldRouter")
by_tuple = routed("by_tuple", ("sends:OldRouter", RULES))
by_colon = routed("by_colon", "sends:by_function")
by_instance = routed("by_instance", (instance, by_function, RULES))


# Settings

annotated = new_app(
    "annotated",
    task_annotations={
        "*": {"priority": 4},
        "noted": {"queue": "noted", "expires": 40, "time_limit": 3},
    },
    task_default_queue="main",
    task_default_exchange="mainx",
    task_default_routing_key="main.key",
    task_compression="gzip",
    task_serializer="yaml",
    task_send_sent_event=True,
    beat_schedule=entries(
        noted={"task": "noted"},
        noted_2={"task": "noted", "args": [1]},
        other={"task": "other"},
        unknown={"task": "unknown"},
    ),
)


@annotated.task(name="noted", priority=1)
def noted(*args): ...


@annotated.task(name="other", rate_limit="1/s")
def other(): ...


first_protocol = new_app(
    "first_protocol",
    task_protocol=1,
    beat_schedule=entries(
        one={"task": "one", "args": [1], "options": {"expires": 30}},
        two={"task": "one", "args": [2], "kwargs": {"a": 1}},
    ),
)


@first_protocol.task(name="one", queue="first")
def one(*args, **kwargs): ...


as_text = new_app(
    "as_text",
    broker_transport_options={"body_encoding": "utf-8"},
    task_default_priority=5,
    task_default_delivery_mode="transient",
    task_ignore_result=True,
    enable_utc=False,
    timezone="America/St_Johns",
    beat_schedule=entries(
        text={"task": "text", "args": ['a "b" \u00fc'], "options": {"countdown": 5}},
        text_2={"task": "text", "args": ["c\\d"]},
        text_3={"task": "text", "args": ["e"]},
        unknown={"task": "unknown"},
    ),
)


@as_text.task(name="text")
def text(*args): ...


class OwnAMQP(AMQP):
    def as_task_v2(self, task_id, name, *args, **kwargs):
        message = super().as_task_v2(task_id, name, *args, **kwargs)
        message.headers["checksum"] = zlib.crc32(repr(message.body).encode())
        return message


own_amqp = Celery(
    "own_amqp",
    broker=BROKER,
    set_as_current=False,
    amqp=OwnAMQP,
    changes={
        "beat_schedule": entries(a={"task": "a"}, b={"task": "a", "args": [1]}),
    },
)

eager = new_app(
    "eager",
    task_always_eager=True,
    beat_schedule=entries(eager={"task": "eager"}, other={"task": "other"}),
)


@eager.task(name="eager", queue="eager")
def run_eagerly():
    raise AssertionError("it ran in the scheduler")


@eager.on_after_configure.connect
def _add(sender, **_):
    sender.add_periodic_task(30.0, run_eagerly.s(), name="added", expires=10)
    sender.add_periodic_task(
        30.0, run_eagerly.signature(options={"queue": "signed"}), name="signed"
    )
