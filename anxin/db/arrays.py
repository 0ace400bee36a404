"""Arrays in Postgres' binary form, a whole column at once, as parameters and in answers.

The driver's own list adapter visits every element; a batch has thousands.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.postgres import types
from psycopg.pq import Format

_INT8 = types["int8"].oid
_TEXT = types["text"].oid
_HEADER_BYTES = 20
"""Of an array of one dimension; an empty one has none and a shorter head."""


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


class _Column(Loader):
    """A one-dimensional array without NULL, as a NumPy array of int64 or float64."""

    format = Format.BINARY
    kind = ">i8"

    def load(self, data: Buffer) -> NDArray[Any]:
        """Return the elements; each stands behind four bytes that tell its size."""
        if len(data) < _HEADER_BYTES:
            return np.empty(0, self.kind[1:])
        pairs = np.frombuffer(data, [("size", ">i4"), ("value", self.kind)], offset=_HEADER_BYTES)
        return pairs["value"].astype(self.kind[1:])


class _FloatColumn(_Column):
    """The same of double precision."""

    kind = ">f8"


def register(connection: AsyncConnection[Any]) -> None:
    """Teach a connection these two kinds of array."""
    connection.adapters.register_dumper(np.ndarray, _Int8Array)
    connection.adapters.register_dumper(Texts, _TextArray)


def register_columns(connection: AsyncConnection[Any]) -> None:
    """Teach a connection to give `bigint[]` and `float8[]` back as NumPy arrays.

    Only where the cursor asks for the binary form, and only for arrays without NULL.
    """
    connection.adapters.register_loader(types["int8"].array_oid, _Column)
    connection.adapters.register_loader(types["float8"].array_oid, _FloatColumn)


def _header(count: int, oid: int, *, nulls: bool) -> bytes:
    if not count:
        return struct.pack(">iiI", 0, 0, oid)
    return struct.pack(">iiIii", 1, int(nulls), oid, count, 1)
