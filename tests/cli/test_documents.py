"""What `--json` gives is what docs/commands.md says."""

import json

import pytest

from tests.cli.conftest import Run, unsaid


@pytest.mark.usefixtures("running_shop")
@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["next"],
        ["next", "tick"],
        ["explain", "30 2 * * *", "--tz", "Europe/Berlin"],
        ["check"],
    ],
)
def test_every_name_in_a_document_is_on_the_page(run: Run, words: list[str]) -> None:
    document = json.loads(run(*words, "--json").stdout)

    assert document["schema"].startswith(f"beatd.{words[0]}/")
    assert unsaid(document) == set()
