"""The topics of one device: what it may publish, say as its will, and subscribe to."""

import re
from collections.abc import Container

import msgspec

from ingest.inbound import KINDS, Kind

DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
WILL_KINDS = (Kind.STATE, Kind.EVENT)

_UP = {name.encode(): kind for name, kind in KINDS.items()}
_DOWN = frozenset({"receipt", "command"})
_FILTERS = {"+": _DOWN, "#": _DOWN} | {name: frozenset({name}) for name in _DOWN}
_ANY_UP = re.compile(rb"anxin/v1/([A-Za-z0-9_-]{1,64})/([a-z]+)")
_ANY_FILTER = re.compile(r"anxin/v1/([A-Za-z0-9_-]{1,64})/(receipt|command|\+|#)")


class Topics(msgspec.Struct, frozen=True):
    """`anxin/v1/{device}/…`, seen from the device whose id this is."""

    device_id: str
    raw_root: bytes

    @classmethod
    def of(cls, device_id: str) -> "Topics":
        """Return the topics of this device."""
        return cls(device_id, f"anxin/v1/{device_id}/".encode())

    def kind(self, raw_topic: bytes) -> Kind | None:
        """Return what is published under this topic, None when the device may not."""
        if not raw_topic.startswith(self.raw_root):
            return None
        return _UP.get(raw_topic[len(self.raw_root) :])

    def kind_for(self, raw_topic: bytes, children: Container[str]) -> tuple[str, Kind] | None:
        """Return for which child a gateway publishes under this topic, and what."""
        found = _ANY_UP.fullmatch(raw_topic)
        if found is None or found[2] not in _UP or (child := found[1].decode()) not in children:
            return None
        return child, _UP[found[2]]

    def grants(self, topic_filter: str, children: Container[str] = ()) -> bool:
        """Tell whether this takes in down topics, own or a child's, and nothing else."""
        found = _ANY_FILTER.fullmatch(topic_filter)
        return found is not None and (found[1] == self.device_id or found[1] in children)


def covers(topic_filter: str, topic: str) -> bool:
    """Tell whether a granted filter takes in this down topic."""
    root, _, name = topic_filter.rpartition("/")
    its_root, _, its_name = topic.rpartition("/")
    return root == its_root and its_name in _FILTERS[name]


def is_filter(text: str) -> bool:
    """Tell whether a topic filter is well formed: `+` fills a level, `#` the last one."""
    levels = text.split("/")
    return (
        bool(text)
        and all(level == "+" or "+" not in level for level in levels)
        and all("#" not in level for level in levels[:-1])
        and (levels[-1] == "#" or "#" not in levels[-1])
    )
