"""Integers, strings and properties come back as they were written, or are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.mqtt import codec, properties
from ingest.mqtt.codec import Reader
from ingest.mqtt.properties import FORMS, Form, Property
from ingest.mqtt.reasons import Reason, Violation
from ingest.mqtt.topics import Topics, covers, is_filter

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
VALUES = {
    Form.BIT: st.integers(0, 1),
    Form.U16: st.integers(1, 0xFFFF),
    Form.U32: st.integers(1, 0xFFFFFFFF),
    Form.VARINT: st.integers(1, codec.VARINT_MAX),
    Form.TEXT: TEXT,
    Form.BINARY: st.binary(max_size=50),
}


def reader(data: bytes) -> Reader:
    """Return a reader of all these bytes."""
    return Reader(data, 0, len(data))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_varint_at_the_borders_of_the_standard_is_written_as_there(
    value: int, written: str
) -> None:
    assert codec.varint(value).hex() == written
    assert reader(bytes.fromhex(written)).varint() == value


@pytest.mark.parametrize("written", ["8000", "ff00", "80808000", "8080808001", "ffffffff", "80"])
def test_varint_that_is_too_long_or_cut_off_is_refused(written: str) -> None:
    with pytest.raises(Violation):
        reader(bytes.fromhex(written)).varint()


@given(st.integers(0, codec.VARINT_MAX))
def test_varint_comes_back(value: int) -> None:
    read = reader(codec.varint(value))
    assert read.varint() == value
    read.finish()


@given(TEXT)
def test_text_comes_back(value: str) -> None:
    assert reader(codec.text(value)).text() == value


@pytest.mark.parametrize("raw", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"a\0b"])
def test_text_that_mqtt_forbids_is_malformed(raw: bytes) -> None:
    with pytest.raises(Violation) as caught:
        reader(codec.binary(raw)).text()
    assert caught.value.reason is Reason.MALFORMED_PACKET


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: VALUES[form] for name, form in FORMS.items() if name is not Property.USER_PROPERTY
        },
    )
)
def test_properties_come_back(wanted: properties.Properties) -> None:
    read = reader(properties.write_properties(wanted))
    assert properties.read_properties(read, frozenset(Property)) == wanted
    read.finish()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("00", Reason.MALFORMED_PACKET),  # no such identifier
        ("7f", Reason.MALFORMED_PACKET),
        ("8f01", Reason.MALFORMED_PACKET),
        ("21000a", Reason.MALFORMED_PACKET),  # Receive Maximum belongs in CONNECT
        ("0b01", Reason.PROTOCOL_ERROR),  # Subscription Identifier from a client
        ("01000101", Reason.PROTOCOL_ERROR),  # Payload Format twice
        ("0102", Reason.PROTOCOL_ERROR),  # Payload Format is 0 or 1
        ("230000", Reason.TOPIC_ALIAS_INVALID),
        ("02000000", Reason.MALFORMED_PACKET),  # Message Expiry cut off
        ("260001610002", Reason.MALFORMED_PACKET),  # User Property cut off
        ("2600016100016226000161000162", None),  # User Property may come twice
    ],
)
def test_properties_of_a_publish_are_judged_one_by_one(body: str, reason: Reason | None) -> None:
    raw = bytes.fromhex(body)
    data = reader(codec.varint(len(raw)) + raw)
    if reason is None:
        assert properties.read_properties(data, properties.IN_PUBLISH) == {}
        return
    with pytest.raises(Violation) as caught:
        properties.read_properties(data, properties.IN_PUBLISH)
    assert caught.value.reason is reason


def test_properties_longer_than_their_packet_are_malformed() -> None:
    with pytest.raises(Violation) as caught:
        properties.read_properties(reader(b"\x05\x01\x00"), properties.IN_PUBLISH)
    assert caught.value.reason is Reason.MALFORMED_PACKET


@pytest.mark.parametrize(
    ("topic_filter", "granted"),
    [
        ("anxin/v1/bed-1/receipt", True),
        ("anxin/v1/bed-1/command", True),
        ("anxin/v1/bed-1/+", True),
        ("anxin/v1/bed-1/#", True),
        ("anxin/v1/bed-1/telemetry", False),
        ("anxin/v1/bed-1", False),
        ("anxin/v1/bed-1/", False),
        ("anxin/v1/bed-10/command", False),
        ("anxin/v1/+/command", False),
        ("anxin/#", False),
        ("#", False),
        ("$share/g/anxin/v1/bed-1/command", False),
    ],
)
def test_a_device_is_granted_its_own_down_topics_only(topic_filter: str, *, granted: bool) -> None:
    assert Topics.of("bed-1").grants(topic_filter) is granted


def test_a_wildcard_covers_both_down_topics_and_nothing_else() -> None:
    for topic_filter in ("anxin/v1/bed-1/+", "anxin/v1/bed-1/#"):
        assert covers(topic_filter, "anxin/v1/bed-1/receipt")
        assert covers(topic_filter, "anxin/v1/bed-1/command")
        assert not covers(topic_filter, "anxin/v1/bed-1/state")
        assert not covers(topic_filter, "anxin/v1/bed-2/command")


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [
        *((text, True) for text in ("a/b", "+", "#", "a/+/b", "a/#", "/")),
        *((text, False) for text in ("", "a+", "#/a", "a/b#", "a/+b/c")),
    ],
)
def test_wildcards_stand_alone_in_their_level(text: str, *, well_formed: bool) -> None:
    assert is_filter(text) is well_formed
