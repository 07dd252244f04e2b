"""What listens to Celery's emissions listens to ours: the real packages."""

import gzip
import json
import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.processes import beatd
from tests.servers import PATIENCE, Server
from tests.switch.files import write
from tests.wire.clients import celery_client

SENTRY = """
    import os

    import sentry_sdk
    from celery import Celery
    from celery.schedules import crontab
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.transport import Transport


    class Recording(Transport):
        def capture_envelope(self, envelope):
            for item in envelope.items:
                data = item.payload.json
                if item.type == "check_in":
                    print(
                        f"check-in {data['status']} {data['monitor_slug']}",
                        f"{data['check_in_id']} {data.get('monitor_config')}",
                        flush=True,
                    )
                if item.type == "transaction":
                    trace = data["contexts"]["trace"]["trace_id"]
                    print(f"transaction {data['transaction']} {trace}", flush=True)


    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1",
        transport=Recording,
        traces_sample_rate=1.0,
        integrations=[CeleryIntegration(monitor_beat_tasks=CHECKS)],
    )
    app = Celery("proj", broker=os.environ["BROKER"])
    app.conf.beat_sentry_monitors = MONITORS
    app.conf.beat_schedule = {
        "nightly": {
            "task": "proj.work",
            "schedule": crontab(minute="7", hour="2"),
            "run_on_start": True,
        }
    }


    @app.task(name="proj.work", bind=True)
    def work(self):
        print("sent in", self.request.headers.get("sentry-trace", "none"), flush=True)
"""

OPENTELEMETRY = """
    import os

    from celery import Celery
    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter


    class Recording(SpanExporter):
        def export(self, spans):
            for span in spans:
                own, parent = span.context, span.parent and span.parent.span_id
                print(
                    f"span {span.name} {own.trace_id} {own.span_id} {parent}",
                    flush=True,
                )


    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Recording()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()
    app = Celery("proj", broker=os.environ["BROKER"])
    app.conf.beat_schedule = {"work": {"task": "proj.work", "schedule": 1}}


    @app.task(name="proj.work")
    def work(): ...
"""

FAILING = """
    import os

    import sentry_sdk
    from celery import Celery
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(dsn=os.environ["DSN"], integrations=[CeleryIntegration()])
    app = Celery("proj", broker=os.environ["BROKER"])


    @app.task(name="proj.fail")
    def fail(number):
        raise ValueError(number)
"""


class Collector(BaseHTTPRequestHandler):
    """Takes what Sentry's own transport sends, once it may."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, Collecting)
        self.server.is_open.wait(PATIENCE)
        lines = body.splitlines()
        for header, item in zip(lines[1::2], lines[2::2], strict=True):
            if json.loads(header)["type"] == "event":
                self.server.events.append(json.loads(item))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


class Collecting(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Collector)
        self.events: list[dict[str, Any]] = []
        self.is_open = threading.Event()


@pytest.fixture
def collecting() -> Iterator[Collecting]:
    with Collecting() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_sentry_has_each_failure_once_though_the_worker_stops_right_after(
    server: Server, tmp_path: Path, collecting: Collecting
) -> None:
    write(tmp_path, {"proj.py": FAILING})
    dsn = f"http://key@127.0.0.1:{collecting.server_port}/1"
    with celery_client(server.url()) as client:
        for number in range(20):
            client.send_task("proj.fail", [number])

    arguments = ("worker", "-A", "proj", "-c", "2", "-l", "INFO")
    with beatd(*arguments, cwd=tmp_path, BROKER=server.url(), DSN=dsn) as worker:
        worker.until("] failed after", times=20)
        worker.send(signal.SIGTERM)
        worker.until("stopping, warm")  # with most of it still to be sent
        collecting.is_open.set()
        assert worker.process.wait(PATIENCE) == 0

    raised = [event["exception"]["values"][-1] for event in collecting.events]
    told = sorted(int(one["value"]) for one in raised)
    assert told == list(range(20))


WORKER = ("worker", "-B", "-P", "solo", "-A", "proj", "-l", "INFO")


def test_a_scheduled_run_is_a_child_of_its_emission_in_opentelemetry(
    server: Server, tmp_path: Path
) -> None:
    write(tmp_path, {"proj.py": OPENTELEMETRY})

    with beatd(*WORKER, cwd=tmp_path, BROKER=server.url()) as worker:
        worker.until("span run/proj.work")
        worker.stop()

    spans = re.findall(r"span (\S+) (\d+) (\d+) (\d+|None)", worker.output)
    sent = {id: trace for name, trace, id, _ in spans if name.startswith("apply_async")}
    runs = [(trace, parent) for name, trace, _, parent in spans if "run/" in name]
    assert runs
    assert all(sent[parent] == trace for trace, parent in runs)
    assert "Traceback" not in worker.output


def test_sentrys_trace_and_check_ins_go_from_the_emission_to_the_run(
    server: Server, tmp_path: Path
) -> None:
    write(tmp_path, {"proj.py": sentry(monitors=True, checks=True)})

    with beatd(*WORKER, cwd=tmp_path, BROKER=server.url()) as worker:
        worker.until("check-in ok nightly")
        worker.until("transaction proj.work")
        worker.stop()

    (sent,) = re.findall(r"sent in (\w+)-", worker.output)
    assert f"transaction proj.work {sent}" in worker.output
    said = re.findall(r"check-in (\w+) nightly (\w+) (.*)", worker.output)
    assert [state for state, _, _ in said] == ["in_progress", "ok"]
    assert said[0][1] == said[1][1]
    assert "'value': '7 2 * * *'" in said[0][2]


def test_sentrys_trace_arrives_without_check_ins(
    server: Server, tmp_path: Path
) -> None:
    write(tmp_path, {"proj.py": sentry(monitors=True, checks=False)})

    with beatd(*WORKER, cwd=tmp_path, BROKER=server.url()) as worker:
        worker.until("transaction proj.work")
        worker.stop()

    (sent,) = re.findall(r"sent in (\w+)-", worker.output)
    assert f"transaction proj.work {sent}" in worker.output
    assert "check-in" not in worker.output


def test_sentry_is_told_nothing_where_the_setting_is_off(
    server: Server, tmp_path: Path
) -> None:
    write(tmp_path, {"proj.py": sentry(monitors=False, checks=True)})

    with beatd(*WORKER, cwd=tmp_path, BROKER=server.url()) as worker:
        worker.until("transaction proj.work")
        worker.stop()

    assert "sent in none" in worker.output
    assert "check-in" not in worker.output


def sentry(*, monitors: bool, checks: bool) -> str:
    return SENTRY.replace("MONITORS", str(monitors)).replace("CHECKS", str(checks))
