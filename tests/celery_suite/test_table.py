"""What is made of the reports of pytest."""

from pathlib import Path

from tests.celery_suite.__main__ import ends_of, table, worse

REPORT = """\
<testsuites><testsuite>
<testcase classname="t.integration.test_tasks.test_retry" name="test_good[1-2]"/>
<testcase classname="t.integration.test_worker" name="test_bad"><failure/></testcase>
<testcase classname="t.integration.test_worker" name="test_torn"><error/></testcase>
<testcase classname="t.integration.test_worker" name="test_no"><skipped/></testcase>
</testsuite></testsuites>
"""
ACTIVE = "t/integration/test_inspect.py::test_Inspect::test_active"


def test_the_ends_of_tests_stand_under_the_words_that_run_them_again(
    tmp_path: Path,
) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(REPORT)

    assert ends_of(report) == {
        "t/integration/test_tasks.py::test_retry::test_good[1-2]": "passed",
        "t/integration/test_worker.py::test_bad": "failed",
        "t/integration/test_worker.py::test_torn": "failed",
        "t/integration/test_worker.py::test_no": "skipped",
    }


def test_what_celery_alone_passes_is_named_with_the_reason_if_there_is_one() -> None:
    ends = {
        "celery-threads": {"t/a": "again", "t/b": "failed", ACTIVE: "passed"},
        "beatd-threads": {"t/a": "failed", "t/b": "failed", ACTIVE: "failed"},
    }

    first, second = worse(ends)

    assert first == "threads: t/a (!)"
    assert second.startswith(f"threads: {ACTIVE}: acknowledged after")


def test_the_table_leaves_out_what_all_pass() -> None:
    ends = {"one": {"t/a": "passed", "t/b": "again"}, "two": {"t/a": "passed"}}

    assert [*table(ends)][2:] == [
        "| t/b | again | - |",
        "| passed | 1 | 1 |",
        "| again | 1 | 0 |",
        "| failed | 0 | 0 |",
        "| skipped | 0 | 0 |",
    ]
