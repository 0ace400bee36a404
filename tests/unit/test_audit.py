"""The audit's chain: every way of changing it quietly is found, at the first entry it touches."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anxin.audit import START, Check, Checkpoint, Entry, Fault, Link, Sealed, Signer, chain

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
OURS = Signer(bytes(range(32)))
THEIRS = Signer(bytes(32))


def entry(number: int, **changes: object) -> Entry:
    values = {
        "id": number + 7,  # numbers of arrival have gaps: a transaction may have been rolled back
        "at": NOW + timedelta(seconds=number),
        "user_id": number % 3,
        "role": "nurse",
        "path": "/1/2/",
        "action": "read",
        "object": "status",
        "residents": (number, 40 + number),
    }
    return msgspec.convert(values | changes, Entry)


def a_chain(count: int = 12, at_once: int = 3, signer: Signer = OURS) -> list[Link]:
    links: list[Link] = []
    head = START
    for start in range(1, count + 1, at_once):
        links += chain(
            head, [entry(n) for n in range(start, min(start + at_once, count + 1))], signer
        )
        head = sealed_by(links[-1]).head
    return links


def sealed_by(link: Link) -> Sealed:
    assert link.seal is not None
    return Sealed(NOW, link.place, link.hash, link.seal)


def verdict(
    links: list[Link], *known: Sealed, checkpoint: Checkpoint | None = None, signer: Signer = OURS
) -> Fault | None:
    check = Check(signer.keys, checkpoint, known)
    for link in links:
        if not check.take(link):
            break
    return check.finish()


def told(links: list[Link], *known: Sealed) -> tuple[str, int]:
    fault = verdict(links, *known)
    assert fault is not None
    assert fault.zh
    assert fault.en
    return fault.deed, fault.place


def recomputed(links: list[Link], from_: int) -> list[Link]:
    """Do what an owner of the database can do: compute every hash from a place on anew."""
    out = links[: from_ - 1]
    head = sealed_by(out[-1]).head if out else START
    for link in links[from_ - 1 :]:
        head = head.then(link.entry)
        out.append(Link(head.place, link.entry, head.hash, link.seal))
    return out


def test_a_chain_that_was_left_alone_is_good() -> None:
    links = a_chain()
    assert verdict(links, sealed_by(links[5]), sealed_by(links[-1])) is None
    assert verdict([]) is None


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize(
    "change",
    [
        {"user_id": 99}, {"user_id": None}, {"role": "family"}, {"path": "/"}, {"action": "change"},
        {"object": "vitals"}, {"object_id": "5"}, {"residents": (1,)}, {"fields": ("name",)},
        {"status": 200}, {"channel": "x"}, {"address": "10.0.0.1"}, {"id": 1000},
        {"at": NOW - timedelta(microseconds=1)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_changed_field_is_found_where_it_is(number: int, change: dict[str, object]) -> None:
    links = a_chain()
    altered = msgspec.structs.replace(links[number].entry, **change)
    links[number] = msgspec.structs.replace(links[number], entry=altered)
    assert told(links) == ("changed", number + 1)


def test_every_field_of_an_entry_is_bound() -> None:
    assert len(Entry.__struct_fields__) == 13, "a new field belongs into the test above"


@pytest.mark.parametrize("number", range(11))
def test_a_removed_entry_is_found(number: int) -> None:
    links = a_chain()
    del links[number]
    assert told(links) == ("removed", number + 1)


@pytest.mark.parametrize("number", range(11))
def test_a_removed_entry_is_found_though_the_others_were_moved_up(number: int) -> None:
    links = a_chain()
    kept = links[:number] + [
        msgspec.structs.replace(link, place=link.place - 1) for link in links[number + 1 :]
    ]
    assert told(kept) == ("changed", number + 1)


@pytest.mark.parametrize("number", range(11))
def test_entries_that_changed_places_are_found(number: int) -> None:
    links = a_chain()
    one, other = links[number], links[number + 1]
    links[number] = msgspec.structs.replace(one, entry=other.entry)
    links[number + 1] = msgspec.structs.replace(other, entry=one.entry)
    assert told(links) == ("changed", number + 1)
    links[number], links[number + 1] = other, one
    assert told(links) == ("removed", number + 1)


def test_an_entry_that_was_slipped_in_is_found() -> None:
    links = a_chain()
    forged = chain(sealed_by(links[5]).head, [entry(500)], THEIRS)[0]
    assert told([*links[:6], forged, *links[6:]]) == ("recomputed", 7)
    unsealed = msgspec.structs.replace(forged, seal=None)
    assert told([*links[:6], unsealed, *links[6:]]) == ("moved", 7)


def test_an_entry_that_was_added_at_the_end_is_found() -> None:
    links = a_chain()
    forged = chain(sealed_by(links[-1]).head, [entry(500)], THEIRS)[0]
    assert told([*links, forged]) == ("recomputed", 13)
    assert told([*links, msgspec.structs.replace(forged, seal=None)]) == ("added", 13)


def test_hashes_computed_anew_do_not_help_without_the_key() -> None:
    links = a_chain()
    links[4] = msgspec.structs.replace(links[4], entry=entry(5, user_id=99))
    assert told(recomputed(links, 4)) == ("recomputed", 4)


def test_a_whole_chain_sealed_with_another_key_is_not_ours() -> None:
    assert told(a_chain(signer=THEIRS)) == ("recomputed", 1)


def test_a_cut_end_is_found_by_a_head_that_was_kept_elsewhere() -> None:
    links = a_chain()
    kept = sealed_by(links[-1])
    assert verdict(links[:6]) is None, "nothing inside the database tells of it"
    assert told(links[:6], kept) == ("cut", 7)
    assert told([], kept) == ("cut", 1)
    assert told(links[:7]) == ("added", 7)


def test_another_history_of_the_same_length_is_found_by_a_head_that_was_kept() -> None:
    links = a_chain()
    other = a_chain(at_once=4)
    assert told(other, sealed_by(links[-1]).__class__(NOW, 12, bytes(32), OURS.seal(
        replace(START, place=12, hash=bytes(32))))) == ("recomputed", 12)  # fmt: skip


def test_a_kept_head_that_was_changed_is_found() -> None:
    links = a_chain()
    kept = msgspec.structs.replace(sealed_by(links[-1]), place=11)
    assert told(links, kept) == ("keys", 11)


def test_what_retention_removed_leaves_a_checkpoint_from_which_the_rest_is_good() -> None:
    links = a_chain()
    checkpoint = OURS.seal_removal(sealed_by(links[5]).head, NOW)
    assert verdict(links[6:], sealed_by(links[2]), checkpoint=checkpoint) is None
    later = verdict(links[7:], checkpoint=checkpoint)
    assert later is not None
    assert (later.deed, later.place) == ("removed", 7)


def test_a_removal_that_retention_did_not_sign_is_found() -> None:
    links = a_chain()
    head = sealed_by(links[5])
    borrowed = Checkpoint(head.place, head.hash, NOW, head.seal)
    signed = OURS.seal_removal(head.head, NOW)
    for checkpoint in (
        borrowed,
        msgspec.structs.replace(signed, until=NOW + timedelta(days=1)),
        THEIRS.seal_removal(head.head, NOW),
    ):
        fault = verdict(links[6:], checkpoint=checkpoint)
        assert fault is not None
        assert fault.deed == "removal"
    missing = verdict(links[6:])
    assert missing is not None
    assert (missing.deed, missing.place) == ("removed", 1)


def test_after_the_key_was_changed_both_keys_vouch() -> None:
    links = a_chain(6)
    both = Signer(secrets.token_bytes(32), OURS.public)
    links += chain(sealed_by(links[-1]).head, [entry(7), entry(8)], both)
    assert verdict(links, signer=both) is None
    fault = verdict(links)
    assert fault is not None
    assert (fault.deed, fault.place) == ("recomputed", 7)


Tamper = Callable[[list[Link], int, int], list[Link]]


def _drop(links: list[Link], one: int, _: int) -> list[Link]:
    return links[:one] + links[one + 1 :]


def _swap(links: list[Link], one: int, other: int) -> list[Link]:
    out = list(links)
    out[one], out[other] = out[other], out[one]
    return out


def _double(links: list[Link], one: int, other: int) -> list[Link]:
    return [*links[:one], links[other], *links[one:]]


def _edit(links: list[Link], one: int, other: int) -> list[Link]:
    altered = msgspec.structs.replace(links[one].entry, residents=(1000 + other,))
    return [*links[:one], msgspec.structs.replace(links[one], entry=altered), *links[one + 1 :]]


def _edit_and_recompute(links: list[Link], one: int, other: int) -> list[Link]:
    batch_start = one - one % 3
    return recomputed(_edit(links, one, other), batch_start + 1)


def _cut(links: list[Link], one: int, _: int) -> list[Link]:
    return links[:one]


@given(
    st.sampled_from([_drop, _swap, _double, _edit, _edit_and_recompute, _cut]),
    st.integers(0, 29),
    st.integers(0, 29),
)
def test_whatever_is_done_is_found_no_later_than_the_first_entry_it_touches(
    tamper: Tamper, one: int, other: int
) -> None:
    links = a_chain(30)
    altered = tamper(links, one, other)
    fault = verdict(altered, sealed_by(links[-1]))
    if altered == links:
        assert fault is None
        return
    assert fault is not None
    touched = next(
        (n for n, (a, b) in enumerate(zip(links, altered, strict=False)) if a != b),
        min(len(links), len(altered)),
    )
    assert fault.place <= touched + 1
    assert fault.place > touched - 3, "no further off than one sealing"
