"""The load generator of `load.c`: compiled when needed, run as a process of its own."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from anxin.config import Address
from anxin.errors import AnxinError
from bench.population import Enrolled

SOURCE: Final = Path(__file__).parent / "load.c"
BUILD: Final = Path(__file__).parent / "build"


class NoCompiler(AnxinError):
    """The load generator is written in C, and there is no `cc` here. Install gcc or clang."""


class LoadFailed(AnxinError):
    """The load generator ended early. Its last words follow."""


class Load(msgspec.Struct, frozen=True):
    """What the generator measured; latencies run from when a message was due to its PUBACK."""

    sent: int
    acked: int
    seconds: float
    rate: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_seconds: float
    begin_ns: int
    """Of CLOCK_MONOTONIC, as `time.monotonic_ns` reads it."""
    newest_ts: int
    message_bytes: int


def compiled() -> Path:
    """Return the program, compiled anew when its source is newer; raise NoCompiler."""
    program = BUILD / "load"
    if program.exists() and program.stat().st_mtime > SOURCE.stat().st_mtime:
        return program
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NoCompiler
    BUILD.mkdir(exist_ok=True)
    done = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(SOURCE), "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LoadFailed(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return program


async def publish(
    program: Path, mqtt: Address, devices: Sequence[Enrolled], **options: str | float
) -> Load:
    """Run the generator with one connection for each device; raise LoadFailed.

    `options` are its own arguments, for example `window=1`, `rate=1000`, `seconds=10`.
    """
    with tempfile.TemporaryDirectory(prefix="anxin-load-") as directory:
        book = Path(directory) / "devices"
        book.write_text("".join(f"{one.id} {one.secret}\n" for one in devices), encoding="ascii")
        arguments = {
            "host": mqtt.host,
            "port": mqtt.port,
            "devices": book,
            "connections": len(devices),
            **options,
        }
        process = await asyncio.create_subprocess_exec(
            program,
            *(f"{name}={value}" for name, value in arguments.items()),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            said, complained = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
    if process.returncode != 0:
        raise LoadFailed(f"The load generator failed: {complained.decode().strip()} {said!r}")
    return msgspec.json.decode(said, type=Load)
