"""Arrays as parameters in Postgres' binary form, a whole column at once.

The driver's own list adapter visits every element; a batch has thousands.
"""

import struct
from typing import Any

import numpy as np
from psycopg import AsyncConnection
from psycopg.adapt import Buffer, Dumper
from psycopg.postgres import types
from psycopg.pq import Format

_INT8 = types["int8"].oid
_TEXT = types["text"].oid


class Texts(list[str | None]):
    """A list that is sent as `text[]`; None is NULL."""


class _Int8Array(Dumper):
    """A one-dimensional int64 NumPy array, as `bigint[]`."""

    format = Format.BINARY
    oid = types["int8"].array_oid

    def dump(self, obj: Any) -> Buffer:  # noqa: ANN401  the driver's signature
        out = np.empty(len(obj), [("size", ">i4"), ("value", ">i8")])
        out["size"] = 8
        out["value"] = obj
        return _header(len(obj), _INT8, nulls=False) + out.tobytes()


class _TextArray(Dumper):
    """`Texts`, as `text[]`."""

    format = Format.BINARY
    oid = types["text"].array_oid

    def dump(self, obj: Any) -> Buffer:  # noqa: ANN401  the driver's signature
        parts = [_header(len(obj), _TEXT, nulls=None in obj)]
        for text in obj:
            if text is None:
                parts.append(b"\xff\xff\xff\xff")
            else:
                body = text.encode()
                parts += (len(body).to_bytes(4, "big"), body)
        return b"".join(parts)


def register(connection: AsyncConnection[Any]) -> None:
    """Teach a connection these two kinds of array."""
    connection.adapters.register_dumper(np.ndarray, _Int8Array)
    connection.adapters.register_dumper(Texts, _TextArray)


def _header(count: int, oid: int, *, nulls: bool) -> bytes:
    if not count:
        return struct.pack(">iiI", 0, 0, oid)
    return struct.pack(">iiIii", 1, int(nulls), oid, count, 1)
