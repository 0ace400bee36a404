"""`python -m supply sbom FILE`, `python -m supply audit`, `python -m supply check`."""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supply import advisories
from supply.licences import objections
from supply.locks import ROOT, packages
from supply.sbom import bill
from supply.secrets import leaks

PRODUCT = ("anxin", "ingest", "models", "api", "device_sim")


def main() -> int:
    """Write the bill, or check; return 1 with any finding."""
    parser = argparse.ArgumentParser(prog="supply", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sbom = commands.add_parser("sbom", help="write the bill of materials, CycloneDX 1.6")
    sbom.add_argument("file", type=Path)
    commands.add_parser("check", help="licences, secrets, bandit: all that needs no network")
    commands.add_parser("audit", help="the same, and what registries know of vulnerabilities")
    args = parser.parse_args()
    if args.command == "sbom":
        return write_sbom(args.file)
    faults = check()
    if args.command == "audit":
        faults += audit()
    print(f"{faults} finding(s)" if faults else "nothing found")
    return 1 if faults else 0


def write_sbom(file: Path) -> int:
    """Write the bill of what is locked now; SOURCE_DATE_EPOCH makes it reproducible."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    at = datetime.fromtimestamp(int(seconds), UTC) if seconds else datetime.now(UTC)
    made = current_bill(at)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{file}: {len(made['components'])} components")
    return 0


def current_bill(at: datetime) -> dict[str, Any]:
    """Return the bill of this repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    web = json.loads((ROOT / "web" / "package.json").read_text(encoding="utf-8"))
    direct = [re.split(r"[^A-Za-z0-9-]", one)[0].lower() for one in project["dependencies"]]
    direct += web["dependencies"]
    return bill(project["name"], project["version"], packages(), direct, at)


def check() -> int:
    """Print what needs no network to be found, and return how much it is."""
    faults = _told("licences of the product", objections(packages()))
    faults += _told("secrets in the repository", leaks())
    words = ["--quiet", "--recursive", "--configfile=pyproject.toml", "--format=custom"]
    template = "--msg-template={relpath}:{line}: {test_id} {msg}"
    done = subprocess.run(
        [sys.executable, "-m", "bandit", *words, template, *PRODUCT],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode and not found:
        found = [f"bandit failed: {done.stderr.strip().splitlines()[-1:]}"]
    return faults + _told("dangerous code (bandit)", found)


def audit() -> int:
    """Print what the registries know, and return how much it is."""
    faults = 0
    locks = [ROOT / name for name in ("requirements.lock", "requirements-dev.lock")]
    answers = [advisories.of_python(lock) for lock in locks]
    answers += [advisories.of_npm(folder) for folder in ("web", "tests/compose", "tests/timescale")]
    for answer in answers:
        if not answer.asked:
            print(f"vulnerabilities, {answer.whom}: NOT CHECKED, the registry does not answer")
        else:
            faults += _told(
                f"vulnerabilities, {answer.whom} ({answer.asked} packages)", answer.findings
            )
    return faults


def _told(what: str, findings: Iterable[str]) -> int:
    listed = list(findings)
    print(f"{what}: {len(listed) or 'none'}")
    for line in listed:
        print(f"  {line}")
    return len(listed)


if __name__ == "__main__":
    sys.exit(main())
