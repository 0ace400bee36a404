"""A real TimescaleDB for tests: the extension compiled to WebAssembly, behind a socket."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import npm

_HERE = Path(__file__).parent


@contextmanager
def server() -> Iterator[str]:
    """Start one and yield its DSN; connections are served one after the other, without COPY."""
    npm.install(_HERE)
    node = shutil.which("node", path=npm.PATH)
    assert node is not None
    with subprocess.Popen(
        [node, "server.mjs"],
        cwd=_HERE,
        stdin=subprocess.PIPE,  # its end is the sign to end
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            assert port, "TimescaleDB in WebAssembly did not start; see standard error"
            yield f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        finally:
            process.stdin.close()
