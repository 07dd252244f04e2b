"""What containers are made of and run: no engine is needed to see that it fits."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from beatd.cli import beatd, environment
from beatd.config.loading import Wanted, examine
from beatd.version import __version__
from tests.processes import ROOT
from tests.test_docs import parse

KUBERNETES = ROOT / "docs" / "deploy" / "kubernetes"
EXAMPLE = ROOT / "examples" / "deploy"

USER = 10001

NAME = "app.kubernetes.io/name"

BUILT = f"beatd:{__version__}"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each in one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [
        (word, rest) for word, _, rest in (one.partition(" ") for one in lines) if word
    ]


def values(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    """Return the services of compose.yaml that are beatd's."""
    return {
        name: one
        for name, one in compose()["services"].items()
        if one["image"] == BUILT
    }


def manifests() -> Iterator[dict[str, Any]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    """Return the manifests of a kind by their names."""
    found = (one for one in manifests() if one["kind"] == kind)
    return {one["metadata"]["name"]: one for one in found}


def secret_of_the_page() -> tuple[str, list[str]]:
    """Return the name and the keys of the Secret that the page has people make."""
    page = (ROOT / "docs" / "deploy" / "kubernetes.md").read_text()
    [line] = re.findall(r"^kubectl create secret generic .*", page, re.M)
    return line.split()[4], re.findall(r"--from-literal=(\w+)='redis://", line)


DEPLOYMENTS = sorted(of_kind("Deployment"))


def pod(deployment: str) -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("Deployment")[deployment]["spec"]["template"]["spec"]
    return spec


def container(deployment: str) -> dict[str, Any]:
    [found] = pod(deployment)["containers"]
    assert isinstance(found, dict)
    return found


def variables() -> set[str]:
    """Return the variables that beatd reads by names of its own."""
    named = {name for one in environment.shown() for name in environment.names_of(one)}
    return named | {"BEATD_BROKER_URL_FILE", "BEATD_RESULT_BACKEND_FILE"}


def commands() -> Iterator[list[str]]:
    """Yield the command lines that containers run."""
    yield json.loads(values("CMD")[0])
    yield json.loads(values("HEALTHCHECK")[0].partition("CMD ")[2])
    for service in services().values():
        yield service["command"]
    for name in DEPLOYMENTS:
        yield container(name)["command"]


@pytest.mark.parametrize("command", [*commands()], ids=" ".join)
def test_a_command_of_a_container_is_understood(command: list[str]) -> None:
    program, *words = command

    assert program == "beatd"
    parse(beatd, words)


# The image


def test_images_are_of_a_version_that_is_named() -> None:
    named = [rest.split()[0] for rest in values("FROM")]
    named += [one["image"] for one in compose()["services"].values()]
    named += [container(name)["image"] for name in DEPLOYMENTS]

    assert len(named) > 6
    assert [one for one in named if not re.search(r":\d+\.\d+", one)] == []
    ours = {one for one in named if one.startswith("beatd")}
    assert ours == {BUILT}


@pytest.mark.parametrize(
    "file", ["Dockerfile", "docs/deploy/container.md", "docs/deploy/kubernetes.md"]
)
def test_the_image_is_built_under_the_name_by_which_it_is_run(file: str) -> None:
    told = re.findall(r"docker build -t (\S+)", (ROOT / file).read_text())

    assert told == [BUILT]


def test_the_image_runs_as_a_user_without_rights_that_has_a_number() -> None:
    """Kubernetes cannot tell of a name whether it is root's."""
    words = [word for word, _ in instructions()]

    assert values("USER") == [f"{USER}:{USER}"]
    assert "RUN" not in words[words.index("USER") :]
    assert f"install -d -o {USER} -g {USER} -m 0750 /var/lib/beatd" in values("RUN")[1]
    assert values("VOLUME") == values("WORKDIR")[1:] == ["/var/lib/beatd"]


def test_process_1_is_python_and_no_shell() -> None:
    check = values("HEALTHCHECK")[0].partition("CMD ")[2]

    assert json.loads(values("CMD")[0]) == ["beatd"]
    assert json.loads(check) == ["beatd", "status", "--exit-code", "--quiet"]
    assert values("ENTRYPOINT") == []


def test_the_image_keeps_no_cache_adds_no_address_and_knows_no_secret() -> None:
    assert values("ADD") == []
    assert [rest for rest in values("RUN") if "apt-get" in rest or "sudo" in rest] == []
    pips = [one for rest in values("RUN") for one in re.findall(r"pip \w+[^&]*", rest)]
    assert len(pips) == 2
    assert [one for one in pips if "--no-cache-dir" not in one] == []
    assert "PASSWORD" not in " ".join(values("ENV")).upper()
    assert "://" not in " ".join(values("ENV"))


def test_the_image_is_made_of_what_is_there_and_let_through() -> None:
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [word for rest in values("COPY") for word in rest.split()[:-1]]

    assert len(copied) == 5
    assert [one for one in copied if not (ROOT / one).exists()] == []
    assert [one for one in copied if f"!{one}" not in let_through] == []
    assert "*" in let_through


def test_variables_of_containers_are_those_that_beatd_reads() -> None:
    named = re.findall(r"\b(BEATD_\w+)=", " ".join(values("ENV")))
    for service in services().values():
        named += [one for one in service["environment"] if one[:6] == "BEATD_"]
    for name in DEPLOYMENTS:
        named += [one["name"] for one in container(name)["env"]]

    assert len(named) > 10
    assert set(named) - variables() == set()


# compose.yaml


def test_compose_has_two_schedulers_and_a_worker_with_few_rights() -> None:
    found = services()

    assert found.keys() == {"scheduler", "worker"}
    assert found["scheduler"]["scale"] == 2
    for service in found.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_the_redis_of_compose_forgets_nothing() -> None:
    words = compose()["services"]["redis"]["command"]

    assert "noeviction" in words
    assert words[words.index("--appendonly") + 1] == "yes"


def test_the_image_starts_without_a_secret() -> None:
    """A file that is named has to be there."""
    assert "_FILE=" not in " ".join(values("ENV"))


def test_the_secret_of_compose_is_where_beatd_looks_for_it() -> None:
    secrets = compose()["secrets"]

    for service in services().values():
        assert service["secrets"] == ["broker_url"]
        named = service["environment"]["BEATD_BROKER_URL_FILE"]
        assert named == "/run/secrets/broker_url"
    assert (
        (ROOT / secrets["broker_url"]["file"]).read_text().startswith("redis://redis")
    )


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_config_of_the_example_is_right(tmp_path: Path, where: str) -> None:
    folder = EXAMPLE
    if where == "kubernetes":
        folder = tmp_path
        for name, text in of_kind("ConfigMap")["beatd"]["data"].items():
            (tmp_path / name).write_text(text)

    report = examine(Wanted(config=str(folder / "config.py")))

    assert report.problems == []
    assert report.config is not None
    written = report.config.settings.beat_schedule.values()
    assert {"tasks.say"} == {one["task"] for one in written}
    assert "def say(" in (folder / "tasks.py").read_text()


# Kubernetes


def test_two_schedulers_of_which_one_may_be_evicted() -> None:
    scheduler = of_kind("Deployment")["beatd-scheduler"]["spec"]
    [budget] = of_kind("PodDisruptionBudget").values()

    assert scheduler["replicas"] == 2
    assert budget["spec"] == {"minAvailable": 1, "selector": scheduler["selector"]}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_has_few_rights(name: str) -> None:
    around, inside = pod(name)["securityContext"], container(name)["securityContext"]

    assert around["runAsNonRoot"] is True
    assert around["runAsUser"] == USER
    assert around["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_probes_ask_what_is_answered(name: str) -> None:
    found = container(name)
    [port] = found["ports"]
    address = {one["name"]: one["value"] for one in found["env"]}["BEATD_HTTP"]
    asked = {
        probe: found[probe]["httpGet"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert address == f"0.0.0.0:{port['containerPort']}"
    assert {one["port"] for one in asked.values()} == {port["name"]}
    assert asked["livenessProbe"]["path"] == asked["startupProbe"]["path"] == "/livez"
    assert asked["readinessProbe"]["path"] == "/readyz"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_a_pod_mounts_is_there(name: str) -> None:
    volumes = {one["name"]: one for one in pod(name)["volumes"]}
    mounts = {one["name"]: one["mountPath"] for one in container(name)["volumeMounts"]}
    files = {one["name"]: one["value"] for one in container(name)["env"]}

    assert mounts.keys() == volumes.keys()
    assert volumes["config"]["configMap"]["name"] in of_kind("ConfigMap")
    secret, keys = secret_of_the_page()
    assert volumes["secret"]["secret"]["secretName"] == secret
    assert {name: path for name, path in files.items() if name.endswith("_FILE")} == {
        f"BEATD_{key.upper()}_FILE": f"{mounts['secret']}/{key}" for key in keys
    }
    assert mounts["config"] == "/etc/beatd"
    assert mounts["state"] == "/var/lib/beatd"


def test_applying_the_folder_overwrites_no_secret() -> None:
    assert of_kind("Secret") == {}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_labels_select_the_pods_of_their_deployment(name: str) -> None:
    spec = of_kind("Deployment")[name]["spec"]
    labels = spec["template"]["metadata"]["labels"]

    assert spec["selector"]["matchLabels"] == labels
    assert labels["app.kubernetes.io/component"] == name.removeprefix("beatd-")


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_prometheus_finds_the_pods_under_the_job_that_rules_expect(name: str) -> None:
    monitoring = ROOT / "docs" / "monitoring"
    text = (monitoring / "prometheus-kubernetes.yml").read_text()
    [scrape] = yaml.safe_load(text)["scrape_configs"]
    template = of_kind("Deployment")[name]["spec"]["template"]
    labels = template["metadata"]["labels"]
    ports, jobs, _ = scrape["relabel_configs"]
    [selector] = scrape["kubernetes_sd_configs"][0]["selectors"]
    component = labels["app.kubernetes.io/component"]
    job = jobs["replacement"] if component == jobs["regex"] else scrape["job_name"]

    assert selector["label"] == f"app.kubernetes.io/name={labels[NAME]}"
    assert ports["regex"] == container(name)["ports"][0]["name"]
    assert f'job="{job}"' in (monitoring / "rules.yaml").read_text()
    # A Prometheus that goes by annotations would give the pods another job.
    assert "annotations" not in template["metadata"]


def test_a_worker_has_time_to_end_what_runs() -> None:
    assert services()["worker"]["stop_grace_period"] == "2m"
    assert pod("beatd-worker")["terminationGracePeriodSeconds"] >= 120


def test_all_that_is_deployed_is_tried() -> None:
    assert DEPLOYMENTS == ["beatd-scheduler", "beatd-worker"]
    assert {path.name for path in EXAMPLE.iterdir() if path.is_file()} == {
        "broker_url",
        "config.py",
        "tasks.py",
    }
