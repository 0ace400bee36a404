"""The clock that jumps, in a real process."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.clock import Clock

ASK = """
import datetime, time
utc = datetime.UTC
for _ in input, input:
    input()
    print(time.time(), datetime.datetime.now(utc).timestamp(), time.monotonic(), flush=True)
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_a_process_sees_the_time_of_day_jump_and_durations_stay(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    assert clock.there
    with subprocess.Popen(
        [sys.executable, "-c", ASK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**clock.environ},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for offset in (3600, -3600):
            clock.set(offset)
            process.stdin.write("\n")
            process.stdin.flush()
            told, date, monotonic = map(float, process.stdout.readline().split())
            assert told - time.time() == pytest.approx(offset, abs=5)
            assert date - time.time() == pytest.approx(offset, abs=5)
            assert time.monotonic() - monotonic == pytest.approx(0, abs=5)
    assert process.returncode == 0
