"""Packages from npm that only tests need, each pinned by a lock beside it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_SECONDS = 150

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
"""Where to look for Node.js: it may come with this Python environment."""


def install(directory: Path) -> Path:
    """Install what the lock in `directory` names and return its node_modules.

    Where that cannot be done the test is skipped with the reason, and fails in CI.
    """
    modules = directory / "node_modules"
    done = modules / ".package-lock.json"
    lock = directory / "package-lock.json"
    if done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
        return modules
    npm = shutil.which("npm", path=PATH)
    if npm is None:
        not_here("Node.js is not installed")
    try:
        run = subprocess.run(
            [npm, "ci", "--silent"],
            cwd=directory,
            env={**os.environ, "PATH": PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        not_here(f"npm did not answer in {_SECONDS} s")
    if run.returncode:
        not_here(f"npm could not fetch its packages: {run.stderr[-500:]}")
    done.touch()
    return modules


def not_here(reason: str) -> NoReturn:
    """Skip the test that runs, with the reason in plain words; in CI let it fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI must have it")
    pytest.skip(f"not run: {reason}")
