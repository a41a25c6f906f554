"""Settings: one table of words, three sources, errors that say where to look."""

import os
from pathlib import Path

import pytest

pytest.importorskip("pydantic_settings", reason="needs the extra server: pip install 'rankserve[server]'")

from pydantic import ValidationError

from rankserve.server.settings import ServerSettings
from rankserve.server.settings_sources import ConfigurationError, load_settings, to_toml
from rankserve.server.settings_table import SETTINGS, Topic, option_name, variable_name

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RANKSERVE_"):
            monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    path = folder / "rankserve.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(options: dict[str, object] | None = None, config: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        load_settings(options or {}, config)
    assert str(raised.value).splitlines() == list(raised.value.problems)
    return raised.value.problems


def test_the_table_describes_every_setting() -> None:
    assert list(SETTINGS) == sorted(SETTINGS, key=lambda name: list(Topic).index(SETTINGS[name].topic))
    assert SETTINGS.keys() == ServerSettings.model_fields.keys()
    defaults = ServerSettings().model_dump(mode="json")
    assert {name: setting.default for name, setting in SETTINGS.items()} == defaults
    for name, setting in SETTINGS.items():
        assert type(setting.default) is type(defaults[name]), name
        assert ServerSettings.model_fields[name].description == setting.description
        assert setting.description.endswith("."), name


def test_the_documentation_has_every_setting() -> None:
    documented = DOCUMENTATION.read_text(encoding="utf-8").split("\n## ")
    for topic in Topic:
        [section] = [section for section in documented if section.startswith(f"{topic}\n")]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert rows == [
            f"| `{name}` | `{option_name(name)}` | `{variable_name(name)}` | {setting.shown_default}"
            f" | {setting.description} |"
            for name, setting in SETTINGS.items()
            if setting.topic is topic
        ]


def test_an_option_goes_before_a_variable_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, "port = 1\nmax_waiting = 1\nseed = 1\n")
    monkeypatch.setenv("RANKSERVE_PORT", "2")
    monkeypatch.setenv("RANKSERVE_MAX_WAITING", "2")
    loaded = load_settings({"port": "3"}, config)
    assert (loaded.settings.port, loaded.settings.max_waiting, loaded.settings.seed) == (3, 2, 1)
    assert loaded.origins == {"port": "--port", "max_waiting": "RANKSERVE_MAX_WAITING", "seed": str(config)}
    assert loaded.settings.changed() == {"port": 3, "max_waiting": 2, "seed": 1}


def test_a_variable_names_the_file_unless_an_option_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKSERVE_CONFIG", str(write(tmp_path, "seed = 1\n")))
    assert load_settings({}).settings.seed == 1
    (tmp_path / "other").mkdir()
    assert load_settings({}, write(tmp_path / "other", "seed = 2\n")).settings.seed == 2


def test_made_directly_they_read_neither_environment_nor_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKSERVE_CONFIG", str(write(tmp_path, "seed = 1\n")))
    monkeypatch.setenv("RANKSERVE_PORT", "2")
    monkeypatch.setenv("RANKSERVE_NOPE", "2")
    assert ServerSettings(policy="fcfs").changed() == {"policy": "fcfs"}


def test_they_are_fixed_once_made() -> None:
    with pytest.raises(ValidationError):
        ServerSettings().port = 1


def test_an_unknown_name_in_the_file_is_named_with_the_closest(tmp_path: Path) -> None:
    config = write(tmp_path, 'max-waiting = 5\ntoken = "swordfish"\n[scheduling]\npolicy = "fcfs"\n')
    first, second, third = problems(config=config)
    assert first == f"{config}: max-waiting: there is no such setting; the closest is max_waiting"
    assert second.startswith(f"{config}: token: ")
    assert "swordfish" not in second
    assert third.startswith(f"{config}: scheduling: ")


def test_an_unknown_variable_is_named_with_the_closest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKSERVE_MAX_WAITINGS", "5")
    assert problems() == (
        "RANKSERVE_MAX_WAITINGS: there is no such setting; the closest is RANKSERVE_MAX_WAITING",
    )


def test_each_impossible_value_is_named_with_its_source_and_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, "retain_s = inf\nkv_blocks = true\n")
    monkeypatch.setenv("RANKSERVE_MAX_WAITING", "many")
    assert set(problems({"port": "-1", "preemption": "always"}, config)) == {
        f"{config}: retain_s: inf should be a finite number",
        f"{config}: kv_blocks: True should not be true or false",
        "RANKSERVE_MAX_WAITING: 'many' should be a valid integer, unable to parse string as an integer",
        "--port: '-1' should be greater than or equal to 0",
        "--preemption: 'always' should be 'off', 'recompute' or 'swap'",
    }


@pytest.mark.parametrize("content", [b"port = \n", b"port 5\n", b"profile = '\xff'\n"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "broken.toml"
    config.write_bytes(content)
    [problem] = problems(config=config)
    assert problem.startswith(f"{config}: not TOML: ")


@pytest.mark.parametrize("named_by", ["option", "variable"])
def test_a_missing_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_by: str) -> None:
    missing = tmp_path / "missing.toml"
    if named_by == "variable":
        monkeypatch.setenv("RANKSERVE_CONFIG", str(missing))
    with pytest.raises(FileNotFoundError, match=r"missing\.toml"):
        load_settings({}, missing if named_by == "option" else None)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKSERVE_KV_BLOCKS", "")
    monkeypatch.setenv("RANKSERVE_CONFIG", "")
    assert load_settings({}).settings == ServerSettings()


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "RANKSERVE_SERVICE_HOST": "10.0.0.1",
        "RANKSERVE_SERVICE_PORT": "50051",
        "RANKSERVE_SERVICE_PORT_GRPC": "50051",
        "RANKSERVE_PORT": "tcp://10.0.0.1:50051",
        "RANKSERVE_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "RANKSERVE_PORT_50051_TCP_ADDR": "10.0.0.1",
        "RANKSERVE_METRICS_SERVICE_HOST": "10.0.0.2",
        "RANKSERVE_METRICS_PORT": "tcp://10.0.0.2:9090",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings({}).settings == ServerSettings()
    monkeypatch.setenv("RANKSERVE_PORT", "5")
    assert load_settings({}).settings.port == 5


def test_printed_settings_are_a_file_that_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKSERVE_MAX_WAIT_MS", "5")
    given: dict[str, object] = {
        "profile": 'q"uo\\te\t\x7f𝄞\n',
        "fair_share": False,
        "time_scale": "1e-7",
        "journal": "a b/ü",
        "kv_reservation": "max",
    }
    printed = to_toml(loaded := load_settings(given))
    assert "fair_share = false  # --no-fair-share\n" in printed
    assert "max_wait_ms = 5  # RANKSERVE_MAX_WAIT_MS\n" in printed
    assert "port = 50051  # default\n" in printed
    assert "# kv_blocks is not set: the profile's\n" in printed
    monkeypatch.delenv("RANKSERVE_MAX_WAIT_MS")
    again = load_settings({}, write(tmp_path, printed))
    assert again.settings == loaded.settings
    assert f"port = 50051  # {tmp_path}" in to_toml(again)
