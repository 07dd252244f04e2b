"""Names of nodes and of their files: as Celery expands them."""

import pytest
from celery.utils.nodenames import default_nodename, host_format, node_format

from beatd.errors import ConfigError
from beatd.service.nodes import is_of_one_process, node_name, path_of


@pytest.mark.parametrize(
    "pattern",
    [
        *("w1", "w1@%h", "w1@%n.%d", "%n@%h", "w%i@%h", "w%I@%h", "100%%@%h", "@%h"),
        *("w1@", "a@b@c", ""),
    ],
)
def test_a_node_has_the_name_that_celery_gives_it(pattern: str) -> None:
    assert node_name(pattern) == host_format(default_nodename(pattern))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("w1@%h", "w1@box.example.org"),
        ("%n@%d", "box@example.org"),
        ("w1", "celery@w1"),
        ("w1@", "w1@box.example.org"),
        ("@%n", "celery@box"),
    ],
)
def test_a_host_has_a_name_and_a_domain(pattern: str, name: str) -> None:
    assert node_name(pattern, "box.example.org") == name


@pytest.mark.parametrize("node", ["w1@box.example.org", "w1@box"])
@pytest.mark.parametrize(
    "pattern", ["log/%n.log", "%h/%d", "%p.pid", "%n%I.log", "%n-%i.log", "5%%", "a b"]
)
def test_a_file_has_the_name_that_celery_gives_it(node: str, pattern: str) -> None:
    assert path_of(pattern, node) == node_format(pattern, node)


def test_each_place_of_a_pool_has_a_file_of_its_own() -> None:
    paths = [path_of("%n%I.log", "w1@box", place) for place in range(3)]

    assert paths == ["w1.log", "w1-1.log", "w1-2.log"]
    assert path_of("%i", "w1@box", 2) == "2"


@pytest.mark.parametrize("pattern", ["w%x@%h", "w1@%p"])
def test_what_stands_for_nothing_is_refused_with_what_does(pattern: str) -> None:
    with pytest.raises(ConfigError, match="known are %n, %h, %d, %i, %I, %%"):
        node_name(pattern)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("%n.log", False), ("%n%I.log", True), ("%i", True), ("50%%i.log", False)],
)
def test_a_pattern_says_whether_its_files_are_of_one_process(
    pattern: str, says: bool
) -> None:
    assert is_of_one_process(pattern) is says
