"""The OpenAPI document against the running API: requests made from it never end in a 5xx."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, settings

from anxin.config import Settings
from anxin.embedded import free_port
from api.app import create_app
from tests.integration.api_world import World, settle
from tests.waiting import wait_until

schemathesis = pytest.importorskip("schemathesis")


@contextmanager
def served(world: World) -> Iterator[str]:
    """Serve the API in a thread: the generated requests are synchronous."""
    port = free_port("127.0.0.1")
    config = uvicorn.Config(
        create_app(Settings(database=world.dsn)),
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


def test_generated_requests_are_answered_as_the_document_says(dsn: str) -> None:
    world = settle(dsn)
    world.device("mat", "A", "anna")
    world.alarm("anna")
    bearer = {"Authorization": f"Bearer {world.tokens['admin']}"}
    with served(world) as address:
        schema = schemathesis.openapi.from_url(f"{address}/api/v1/openapi.json")
        answered: dict[str, set[int]] = {}
        for operation in schema.get_all_operations():
            for case in _cases(operation.ok()):
                if "/auth/" in case.path or case.path.endswith("/users/{user_id}"):
                    continue  # these would end the session that all others need, or take long
                answer = case.call(base_url=address, headers=bearer)
                place = answered.setdefault(f"{case.method} {case.path}", set())
                place.add(answer.status_code)
                assert answer.status_code < 500, (case.as_curl_command(), answer.text)
                if answer.status_code >= 400:
                    assert answer.headers["content-type"] == ["application/problem+json"]
                else:
                    case.validate_response(
                        answer, checks=[schemathesis.checks.not_a_server_error, *_shape()]
                    )
    assert len(answered) > 35
    assert any(status < 300 for statuses in answered.values() for status in statuses)


def _shape() -> list[Any]:
    from schemathesis.specs.openapi.checks import (  # noqa: PLC0415  # only with schemathesis
        response_schema_conformance,
    )

    return [response_schema_conformance]


def _cases(operation: Any) -> list[Any]:
    """Return some requests that follow the document and some that break it."""
    found: list[Any] = []
    for mode, count in (
        (schemathesis.GenerationMode.POSITIVE, 8),
        (schemathesis.GenerationMode.NEGATIVE, 5),
    ):

        @settings(
            max_examples=count,
            phases=[Phase.generate],
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @_given(operation.as_strategy(generation_mode=mode))
        def collect(case: Any) -> None:
            found.append(case)

        collect()
    return found


def _given(strategy: Any) -> Any:
    from hypothesis import given  # noqa: PLC0415  # beside its only use

    return given(strategy)
