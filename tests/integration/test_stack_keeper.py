"""Keepers: what dies is started again, what is stopped stays stopped, nothing is left behind."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from anxin import keeper as keeper_module
from anxin.keeper import Keeper, Service, ServiceFailed
from tests.waiting import wait_until

SLEEPER = "import signal, sys; sys.stderr.write('here\\n'); sys.stderr.flush(); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
FOREVER = "while True: signal.pause()"


def _service(code: str, **more: object) -> Service:
    command = [sys.executable, "-c", code]
    return Service("toy", command, dict(os.environ), **more)  # type: ignore[arg-type]


@contextmanager
def _kept(service: Service) -> Iterator[Keeper]:
    keeper = Keeper("toy", service)
    keeper.start()
    try:
        yield keeper
    finally:
        keeper.stop()


def _pid(service: Service) -> int:
    assert service._process is not None
    return service._process.pid


def test_killed_service_is_started_again() -> None:
    service = _service(SLEEPER)
    with _kept(service) as keeper:
        keeper.await_ready()
        pids = set()
        for _ in range(3):
            pid = _pid(service)
            pids.add(pid)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda old=pid: _pid(service) != old)  # type: ignore[misc]
        assert len(pids) == 3


def test_pause_between_starts_grows_so_that_a_broken_service_does_not_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "FIRST_PAUSE_SECONDS", 0.01)
    tally = tmp_path / "starts"
    service = _service(f"import time; open({str(tally)!r}, 'a').write(f'{{time.monotonic()}}\\n')")
    with _kept(service):
        wait_until(lambda: tally.exists() and len(tally.read_text().split()) >= 5)
    starts = [float(line) for line in tally.read_text().split()]
    assert starts[4] - starts[3] > 0.08


def test_service_that_ends_before_it_is_ready_fails_the_first_start() -> None:
    service = _service("raise SystemExit(7)", ready=lambda: False)
    with _kept(service) as keeper, pytest.raises(ServiceFailed, match="toy ended with code 7"):
        keeper.await_ready()


def test_service_that_never_gets_ready_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_READY_SECONDS", 0.3)
    service = _service(SLEEPER, ready=lambda: False)
    with _kept(service) as keeper, pytest.raises(ServiceFailed, match="not ready after"):
        keeper.await_ready()
    assert not psutil.pid_exists(_pid(service))


def test_stopped_while_it_starts_it_neither_hangs_nor_stays() -> None:
    service = _service(SLEEPER, ready=lambda: False)
    keeper = Keeper("toy", service)
    keeper.start()
    wait_until(lambda: service._process)
    keeper.stop()
    assert not psutil.pid_exists(_pid(service))


def test_deaf_service_is_killed_after_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keeper_module, "_STOP_SECONDS", 0.3)
    heard = tmp_path / "ready"
    service = _service(f"{DEAF}open({str(heard)!r}, 'w')\n{FOREVER}", ready=heard.exists)
    with _kept(service) as keeper:
        keeper.await_ready()
    assert service.wait() == -signal.SIGKILL


def test_abort_ends_it_at_once_and_for_good() -> None:
    service = _service(DEAF + FOREVER)
    with _kept(service) as keeper:
        keeper.await_ready()
        began = time.monotonic()
        keeper.abort()
    assert time.monotonic() - began < 5
    assert not psutil.pid_exists(_pid(service))


def test_output_goes_to_its_file(tmp_path: Path) -> None:
    output = tmp_path / "toy.log"
    with _kept(_service(SLEEPER, output=output)):
        wait_until(lambda: output.exists() and output.read_text() == "here\n")


def test_service_does_not_outlive_the_thread_that_started_it(tmp_path: Path) -> None:
    heard = tmp_path / "ready"
    service = _service(f"open({str(heard)!r}, 'w')\n{SLEEPER}", ready=heard.exists)
    thread = threading.Thread(target=service.start)
    thread.start()
    thread.join()
    assert service.wait() == -signal.SIGKILL
