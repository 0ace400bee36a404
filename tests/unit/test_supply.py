"""What Anxin is made of: the bill is true to the locks, and each check finds what it is for."""

import json
import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

from supply import advisories, secrets
from supply.__main__ import current_bill
from supply.licences import objections
from supply.locks import ROOT, Package, packages

AT = datetime(2026, 11, 23, tzinfo=UTC)


def package(licence: str, name: str = "one", use: str = "product") -> Package:
    return Package("pypi", name, "1.0", use, (), licence)  # type: ignore[arg-type]


def test_the_bill_follows_the_schema_of_cyclonedx() -> None:
    folder = resources.files("cyclonedx.schema._res")

    def load(name: str) -> dict[str, object]:
        text = folder.joinpath(f"{name}.SNAPSHOT.schema.json").read_text(encoding="utf-8")
        found: dict[str, object] = json.loads(text)
        return found

    schema = load("bom-1.6")
    parts = [
        (f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", load(name))
        for name in ("spdx", "jsf-0.82")
    ]
    registry: Registry[object] = Registry().with_resources(
        [(address, Resource.from_contents(part)) for address, part in parts]
    )
    made = current_bill(AT)
    jsonschema.Draft7Validator(schema, registry=registry).validate(made)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema, registry=registry).validate(made | {"version": "one"})


def test_the_bill_names_each_locked_package_once_with_its_version() -> None:
    components = {one["purl"]: one for one in current_bill(AT)["components"]}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock, re.MULTILINE)
    assert len(locked) > 30
    for name, version in locked:
        assert components[f"pkg:pypi/{name}@{version}"]["scope"] == "required"
    web = json.loads((ROOT / "web" / "package-lock.json").read_text(encoding="utf-8"))
    for path, one in web["packages"].items():
        if path:
            name = path.rpartition("node_modules/")[2].replace("@", "%40")
            scope = components[f"pkg:npm/{name}@{one['version']}"]["scope"]
            assert scope == ("excluded" if one.get("dev") else "required") or one.get("dev")
    assert len(components) == len(current_bill(AT)["components"])


def test_the_bill_names_what_lies_inside_a_package_and_what_the_product_builds_on() -> None:
    made = current_bill(AT)
    inside = [part for one in made["components"] for part in one.get("components", ())]
    assert [one["name"] for one in inside] == ["postgresql"]
    (root,) = made["dependencies"]
    named = " ".join(root["dependsOn"])
    for name in ("pkg:pypi/fastapi@", "pkg:pypi/psycopg@", "pkg:npm/vue@"):
        assert name in named
    assert "pkg:pypi/pytest@" not in named


def test_the_same_locks_give_the_same_bill() -> None:
    assert current_bill(AT) == current_bill(AT)


def test_every_locked_file_has_a_digest() -> None:
    assert [one.name for one in packages() if not one.hashes] == []


@pytest.mark.parametrize(
    "licence",
    ["GPL-3.0-only", "AGPL-3.0-or-later", "MIT AND GPL-2.0-only", "SSPL-1.0",
     "GNU Affero General Public License v3", "GNU General Public License v2 (GPLv2)", ""],
)  # fmt: skip
def test_a_licence_that_would_bind_the_product_is_found(licence: str) -> None:
    assert list(objections([package(licence)]))
    assert not list(objections([package(licence, use="tool")]))


@pytest.mark.parametrize(
    "licence", ["MIT", "LGPL-3.0-only", "MIT OR GPL-2.0-only", "MPL-2.0 AND MIT", "PSF-2.0"]
)
def test_a_licence_that_leaves_the_product_free_is_accepted(licence: str) -> None:
    assert not list(objections([package(licence)]))


def test_the_product_is_free_of_binding_licences() -> None:
    assert list(objections(packages())) == []


def sample(*parts: str) -> str:
    """Join what must not stand here in one piece."""
    return "".join(parts)


@pytest.mark.parametrize(
    "line",
    [
        sample("-----BEGIN ", "PRIVATE KEY-----"),
        sample("-----BEGIN RSA ", "PRIVATE KEY-----"),
        sample('x = "-----BEGIN EC ', 'PRIVATE KEY-----\\nMHcCAQ"'),
        sample("key: LTAI", "5tQZ8mB2vNc7XyKd"),
        sample("id AKID", "z8krbsJ5yKBZQpn74WFkmLPx3Gh5Wq"),
        sample("AKIA", "IOSFODNN7ZXCVBNM"),
        sample("ghp_", "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"),
        sample("postgresql://anxin:", "Kq81LmZx0aPw@db/anxin"),
        sample('smtp_password = "', 'Kq81LmZx0aPw72Vb"'),
        sample('"api_key": "', 'Kq81LmZx0aPw72VbQ"'),
    ],
)
def test_a_secret_in_a_line_is_found(line: str) -> None:
    assert {number for number, _ in secrets.found_in(f"first\n{line}\n")} == {2}


@pytest.mark.parametrize(
    "line",
    [
        "mqtt://user:password@host:1883",
        "postgresql://anxin:%s@timescaledb:5432/anxin",
        'password = "correct horse battery"',
        'secret_name = "a_setting_of_ours_here"',
        "-----BEGIN CERTIFICATE-----",
        sample('token = "', 'Kq81LmZx0aPw72Vb"  # not a secret: an example'),
    ],
)
def test_an_example_is_no_secret(line: str) -> None:
    assert not list(secrets.found_in(line))


def test_the_repository_holds_no_secret() -> None:
    assert list(secrets.leaks()) == []


def test_what_is_allowed_is_still_there() -> None:
    for file, kind in secrets.ALLOWED:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert kind in {found for _, found in secrets.found_in(text)}, (file, kind)


def test_a_vulnerable_package_of_python_is_told() -> None:
    report = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]},
            {"name": "b", "version": "1", "vulns": []},
            {"name": "c", "version": "1", "skip_reason": "not found"},
        ]
    }
    answer = advisories.read_python("lock", json.dumps(report).encode())
    assert answer == ("lock", 2, ("a 1: PYSEC-1, mended in 2",))


def test_a_vulnerable_package_of_npm_is_told() -> None:
    report = {
        "metadata": {"dependencies": {"total": 7}},
        "vulnerabilities": {"a": {"range": "<2", "severity": "high"}},
    }
    answer = advisories.read_npm("web", json.dumps(report).encode())
    assert answer == ("web", 7, ("a <2: high",))


@pytest.mark.parametrize("said", [b"", b"<html>", b"{}", b'{"error": {"code": "ENOAUDIT"}}', b"[]"])
def test_a_registry_that_does_not_answer_is_not_taken_for_a_good_word(said: bytes) -> None:
    assert advisories.read_python("lock", said).asked == 0
    assert advisories.read_npm("web", said).asked == 0


def test_a_report_without_any_answer_is_not_taken_for_a_good_word() -> None:
    report = {"dependencies": [{"name": "a", "version": "1", "skip_reason": "not found"}]}
    assert advisories.read_python("lock", json.dumps(report).encode()).asked == 0


def test_files_outside_the_repository_are_not_scanned(tmp_path: Path) -> None:
    (tmp_path / "stray").write_text("x", encoding="utf-8")
    assert all(file.is_relative_to(ROOT) for file in secrets.tracked())
