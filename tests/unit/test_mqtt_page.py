"""docs/mqtt.md names every reason code and the limits as they are."""

from pathlib import Path

import pytest

from ingest import listener
from ingest.mqtt import connection, packets, session
from ingest.mqtt.reasons import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_code_has_its_line(reason: Reason) -> None:
    assert f"\n| 0x{reason:02X} " in PAGE


@pytest.mark.parametrize(
    "text",
    [
        f"| packet | {connection.PACKET_LIMIT // 2**20} MiB;",
        f"| CONNECT | {connection.GREETING_LIMIT:,} bytes, within {listener.CONNECT_TIMEOUT_S:g} s",
        f"client identifier at most {packets.CLIENT_ID_LIMIT} characters",
        f"| {connection.RECEIVE_MAXIMUM} with MQTT 5.0",
        f"at most {session.WINDOW}; another {session.WAITING_LIMIT:,} wait",
        f"| topic aliases | {connection.TOPIC_ALIAS_MAXIMUM} up",
        f"with MQTT 5.0 at most {connection.KEEP_ALIVE_LIMIT_S:,} s",
        f"at most {connection.SESSION_LIMIT_S // 3600} h after the connection",
        f"at most {listener.KEPT_SESSIONS:,} without a connection",
        f"{listener.UNREAD_LIMIT_BYTES // 1024} KiB unread for {listener.UNREAD_TIMEOUT_S:g} s",
    ],
)
def test_limit_on_the_page_is_the_limit_in_the_code(text: str) -> None:
    assert text in PAGE
