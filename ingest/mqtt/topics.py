"""The topics of one device: what it may publish, say as its will, and subscribe to."""

import re

import msgspec

from ingest.inbound import KINDS, Kind

DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
WILL_KINDS = (Kind.STATE, Kind.EVENT)

_UP = {name.encode(): kind for name, kind in KINDS.items()}
_DOWN = frozenset({"receipt", "command"})
_FILTERS = {"+": _DOWN, "#": _DOWN} | {name: frozenset({name}) for name in _DOWN}


class Topics(msgspec.Struct, frozen=True):
    """`anxin/v1/{device}/…`, seen from the device whose id this is."""

    root: str
    raw_root: bytes

    @classmethod
    def of(cls, device_id: str) -> "Topics":
        """Return the topics of this device."""
        root = f"anxin/v1/{device_id}/"
        return cls(root, root.encode())

    def kind(self, raw_topic: bytes) -> Kind | None:
        """Return what is published under this topic, None when the device may not."""
        if not raw_topic.startswith(self.raw_root):
            return None
        return _UP.get(raw_topic[len(self.raw_root) :])

    def grants(self, topic_filter: str) -> bool:
        """Tell whether the device may subscribe to this: its own down topics, `+` and `#`."""
        return bool(self._names(topic_filter))

    def covers(self, topic_filter: str, topic: str) -> bool:
        """Tell whether a granted filter takes in this down topic."""
        return topic.startswith(self.root) and topic[len(self.root) :] in self._names(topic_filter)

    def _names(self, topic_filter: str) -> frozenset[str]:
        """Return the last parts of the down topics that a filter takes in."""
        if not topic_filter.startswith(self.root):
            return frozenset()
        return _FILTERS.get(topic_filter[len(self.root) :], frozenset())


def is_filter(text: str) -> bool:
    """Tell whether a topic filter is well formed: `+` fills a level, `#` the last one."""
    levels = text.split("/")
    return (
        bool(text)
        and all(level == "+" or "+" not in level for level in levels)
        and all("#" not in level for level in levels[:-1])
        and (levels[-1] == "#" or "#" not in levels[-1])
    )
