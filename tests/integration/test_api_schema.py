"""The OpenAPI document against the running API, as every role: no request ends in a 5xx.

`ANXIN_FUZZ_CASES=200` (or `make fuzz`) sends so many generated requests to each operation as each
role, with another seed each time; without it a few, always the same ones.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import requests
import uvicorn
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Unsatisfiable

from anxin.config import Settings
from anxin.db.users import Role
from anxin.embedded import free_port
from anxin.keys import ensure_keys
from api.app import create_app
from tests.integration.api_world import World, settle
from tests.waiting import wait_until

schemathesis = pytest.importorskip("schemathesis")

CASES: Final = int(os.environ.get("ANXIN_FUZZ_CASES", "0"))
ROLES: Final = (*get_args(Role), "nobody")
SLOW: Final = ("/api/v1/auth/login",)
"""A wrong password costs time on purpose: a few attempts are enough."""


@contextmanager
def served(world: World, directory: Path) -> Iterator[str]:
    """Serve the API in a thread: the generated requests are synchronous."""
    options = Settings(database=world.dsn, data_dir=str(directory))
    ensure_keys(options)
    port = free_port("127.0.0.1")
    config = uvicorn.Config(
        create_app(options),
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Caller:
    """Somebody of a role, who logs in again when a generated request ended the session."""

    world: World
    role: str
    logins: int = 0
    answered: dict[str, Counter[int]] = field(default_factory=dict)

    def headers(self) -> dict[str, str]:
        """Return what this caller proves itself with."""
        if self.role == "nobody":
            return {}
        return {"Authorization": f"Bearer {self.world.tokens[self.role]}"}

    def again(self) -> None:
        """Be somebody of this role again, whatever was changed."""
        self.logins += 1
        self.world.ask(
            "UPDATE users SET disabled_at = NULL, role = %s WHERE id = %s",
            self.role, int(self.world.ids[self.role]),
        )  # fmt: skip
        self.world.log_in(self.role)


# schemathesis itself draws from `random` in some of its strategies.
@pytest.mark.filterwarnings("ignore:Do not use the .random. module inside strategies")
@pytest.mark.parametrize("role", ROLES)
def test_generated_requests_are_answered_as_the_document_says(
    dsn: str, tmp_path: Path, role: str
) -> None:
    world = settle(dsn)
    world.device("mat", "A", "anna")
    alarm = world.alarm("anna")
    real = {
        "resident_id": world.ids["anna"], "place_id": world.ids["A"], "device_id": "mat",
        "alarm_id": alarm, "user_id": world.ids["family"],
    }  # fmt: skip
    caller = Caller(world, role)
    with served(world, tmp_path) as address, requests.Session() as connection:
        schema = schemathesis.openapi.from_url(f"{address}/api/v1/openapi.json")
        for operation in schema.get_all_operations():
            for number, case in enumerate(_cases_once(operation.ok(), role)):
                if number % 2:
                    _aim(case, real)
                _send(caller, case, address, connection)
    operations = len(caller.answered)
    sent = sum(counts.total() for counts in caller.answered.values())
    print(f"{role}: {sent} requests to {operations} operations, {caller.logins} new logins")
    assert operations > 35
    if CASES:
        assert all(
            counts.total() >= CASES or name.endswith(SLOW)
            for name, counts in caller.answered.items()
        )
    good = [name for name, counts in caller.answered.items() if any(one < 300 for one in counts)]
    assert good if role != "nobody" else set(good) <= OPEN


def test_a_refusal_of_what_cannot_be_is_a_refusal_and_no_fault(dsn: str, tmp_path: Path) -> None:
    world = settle(dsn)
    bearer = {"Authorization": f"Bearer {world.tokens['family']}"}
    with served(world, tmp_path) as address:
        for part in ("x", "%00", "9" * 30, "%F3%B1%A7%95", "-1", "a" * 500):
            for path in (f"residents/{part}/identity", f"devices/{part}", f"alarms/{part}"):
                answer = requests.get(f"{address}/api/v1/{path}", headers=bearer, timeout=10)
                assert 400 <= answer.status_code < 500, (path, answer.text)


OPEN: Final = {"POST /api/v1/auth/logout", "GET /api/v1/auth/providers"}
"""What answers well to anybody: ending a session that is not there, and which ways in there are."""


def _send(caller: Caller, case: Any, address: str, connection: requests.Session) -> None:
    answer = case.call(base_url=address, headers=caller.headers(), session=connection)
    if answer.status_code == 401 and caller.role != "nobody":
        caller.again()
    counts = caller.answered.setdefault(f"{case.method} {case.operation.full_path}", Counter())
    counts[answer.status_code] += 1
    assert answer.status_code < 500, (caller.role, case.as_curl_command(), answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == ["application/problem+json"], (
            case.as_curl_command()
        )
    else:
        case.validate_response(answer, checks=[schemathesis.checks.not_a_server_error, *_shape()])


def _aim(case: Any, real: dict[str, str]) -> None:
    """Point a request at what is there: a random id never gets past the first question."""
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            for name in part.keys() & real.keys():
                part[name] = real[name]


def _shape() -> list[Any]:
    from schemathesis.specs.openapi.checks import (  # noqa: PLC0415  # only with schemathesis
        response_schema_conformance,
    )

    return [response_schema_conformance]


_made: Final[dict[tuple[str, str], list[Any]]] = {}


def _cases_once(operation: Any, role: str) -> list[Any]:
    """Return the cases of an operation; every role sends the same ones, which take long to make."""
    key = (operation.label, "" if CASES else role)
    if key not in _made:
        _made[key] = _cases(operation, role)
    return _made[key]


@cache
def _counts(path: str, role: str) -> tuple[int, int]:
    """Return how many requests follow the document, and how many break it."""
    if not CASES:
        return (5, 3) if role == "admin" else (2, 1)
    if path.endswith(SLOW):
        return 5, 5
    return (CASES + 1) // 2, (CASES + 1) // 2


def _cases(operation: Any, role: str) -> list[Any]:
    """Return some requests that follow the document and some that break it."""
    found: list[Any] = []
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    for mode, count in zip(modes, _counts(operation.full_path, role), strict=True):
        wanted = len(found) + count

        @settings(
            max_examples=count,
            phases=[Phase.generate],
            deadline=None,
            database=None,
            derandomize=not CASES,
            suppress_health_check=list(HealthCheck),
        )
        @_given(operation.as_strategy(generation_mode=mode))
        def collect(case: Any) -> None:
            found.append(case)

        try:
            collect()
        except Unsatisfiable:
            # Open to everybody and without a parameter, there is no way to ask it wrongly.
            if mode is modes[0] or next(operation.iter_parameters(), None) is not None:
                raise
        # An operation that takes nothing has one request only; the same again is a case as well.
        here = found[wanted - count :] or found
        while CASES and here and len(found) < wanted:
            found.append(here[(len(found) - wanted) % len(here)])
    return found


def _given(strategy: Any) -> Any:
    from hypothesis import given  # noqa: PLC0415  # beside its only use

    return given(strategy)
