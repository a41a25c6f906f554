"""What the files of deploy/ say of the server is true, and they agree with each other."""

import json
import re
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("pydantic", reason="needs the extra server: pip install 'rankserve[server]'")

from rankserve.server.settings import ServerSettings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
SETTINGS_FILES = (DEPLOY / "container.toml", BASE / "settings.toml", DEPLOY / "systemd" / "settings.toml")
SELECTING = ("statefulset.yaml", "service.yaml", "poddisruptionbudget.yaml", "networkpolicy.yaml")
# For last messages and the journal, after requests have had their time.
SPARE_S = 15


def settings_of(path: Path) -> ServerSettings:
    return ServerSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    (stateful_set,) = documents(BASE / "statefulset.yaml")
    spec: dict[str, Any] = stateful_set["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    found: dict[str, Any] = only
    return found


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """The directives of the systemd unit."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / "rankserve.service").read_text(encoding="utf-8").splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("path", SETTINGS_FILES, ids=lambda path: path.parent.name)
def test_settings_are_ones_the_server_takes(path: Path) -> None:
    settings = settings_of(path)
    assert settings.journal is not None
    assert settings.drain_notice_s > 0


def test_variables_are_settings() -> None:
    known = {"RANKSERVE_CONFIG", *(f"RANKSERVE_{name.upper()}" for name in ServerSettings.model_fields)}
    texts = [path.read_text(encoding="utf-8") for path in DEPLOY.rglob("*") if path.is_file()]
    named = {name for text in texts for name in re.findall(r"RANKSERVE_[A-Z_]+[A-Z]", text)}
    assert "RANKSERVE_CONFIG" in named
    assert named <= known


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes").rglob("*.yaml")), ids=str)
def test_manifests_are_objects_that_are_used(path: Path) -> None:
    for document in documents(path):
        assert document["apiVersion"]
        assert document["kind"]
    if path.name != "kustomization.yaml":
        assert path.name in documents(path.with_name("kustomization.yaml"))[0]["resources"]
        return
    (kustomization,) = documents(path)
    for other in [*kustomization.get("resources", ()), *kustomization.get("components", ())]:
        assert (path.parent / other).exists()
    for generator in kustomization.get("configMapGenerator", ()):
        assert all((path.parent / name).is_file() for name in generator["files"])


def test_ports_agree(container: dict[str, Any]) -> None:
    settings = settings_of(BASE / "settings.toml")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": settings.port, "operations": settings.operations_port}
    (service,) = documents(BASE / "service.yaml")
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["grpc"]["port"] == settings.port
    assert container["livenessProbe"]["httpGet"]["port"] == "operations"
    exposed = re.findall(
        r"^EXPOSE (.*)$", (DEPLOY / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    in_container = settings_of(DEPLOY / "container.toml")
    assert exposed == [f"{in_container.port} {in_container.operations_port}"] * 2


def test_everything_selects_the_pods() -> None:
    """A disruption budget without a selector protects nothing, a policy without one concerns every pod."""
    found = {path.name: documents(path)[0]["spec"] for path in BASE.glob("*.yaml") if path.name in SELECTING}
    labels = found["statefulset.yaml"]["template"]["metadata"]["labels"]
    selectors = [
        found["statefulset.yaml"]["selector"]["matchLabels"],
        found["service.yaml"]["selector"],
        found["poddisruptionbudget.yaml"]["selector"]["matchLabels"],
        found["networkpolicy.yaml"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


def test_a_server_is_not_killed_while_it_drains(pod: dict[str, Any], unit: dict[str, list[str]]) -> None:
    for settings, limit_s in (
        (settings_of(BASE / "settings.toml"), pod["terminationGracePeriodSeconds"]),
        (settings_of(DEPLOY / "systemd" / "settings.toml"), int(unit["TimeoutStopSec"][0])),
    ):
        assert limit_s >= settings.drain_notice_s + settings.drain_timeout_s + SPARE_S


def test_liveness_does_not_depend_on_readiness(container: dict[str, Any]) -> None:
    """A full disk or a drain makes a server NOT_SERVING; killing it would only lose what it still does."""
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_files_of_the_settings_are_mounted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    settings = settings_of(BASE / "settings.toml")
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert settings.journal is not None
    assert settings.token_file is not None
    assert not mounts[str(settings.journal.parent)].get("readOnly")
    assert str(settings.token_file.parent) in mounts
    (config,) = (entry["value"] for entry in container["env"] if entry["name"] == "RANKSERVE_CONFIG")
    assert Path(config).parent.as_posix() in mounts
    assert Path(config).name == "settings.toml"
    claims = {
        claim["metadata"]["name"]
        for claim in documents(BASE / "statefulset.yaml")[0]["spec"]["volumeClaimTemplates"]
    }
    assert {mount["name"] for mount in mounts.values()} == claims | {
        volume["name"] for volume in pod["volumes"]
    }


def test_nothing_runs_as_root(
    pod: dict[str, Any], container: dict[str, Any], unit: dict[str, list[str]]
) -> None:
    users = set(
        re.findall(r"^USER (.*)$", (DEPLOY / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    security = pod["securityContext"]
    assert users == {f"{security['runAsUser']}:{security['runAsGroup']}"}
    assert security["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert unit["User"] == ["rankserve"]
    assert unit["CapabilityBoundingSet"] == [""]


def test_the_unit_lets_the_server_write_its_journal(unit: dict[str, list[str]]) -> None:
    settings = settings_of(DEPLOY / "systemd" / "settings.toml")
    assert settings.journal is not None
    assert settings.journal.parent == Path("/var/lib") / unit["StateDirectory"][0]


def test_the_build_copies_what_is_there_and_not_ignored() -> None:
    allowed = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert copied
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
        assert f"!{source}" in allowed
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ]
    assert {Path(folder).parts[0] for folder in targets["wheel"]["only-include"]} <= set(
        " ".join(copied).split()
    )


def test_images_have_exactly_one_version_of_what_they_need() -> None:
    lines = (DEPLOY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    for text in requires("rankserve") or ():
        requirement = Requirement(text)
        marker = requirement.marker
        extras = [
            extra
            for extra in ("", "server", "telemetry")
            if marker is None or marker.evaluate({"extra": extra})
        ]
        if extras:
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement.name


def test_container_health_checks_are_commands_there_are() -> None:
    from typer.main import get_group

    from rankserve.cli.main import app

    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    commands = [
        json.loads(command) for command in re.findall(r"^HEALTHCHECK .* CMD (.*)$", text, re.MULTILINE)
    ]
    assert commands == [["rankserve", "health"]] * 2
    assert "health" in get_group(app).commands
