"""Whose rows a query may touch. Every query that serves a person takes one of these."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Scope:
    """Everything under a place, or single residents; nothing else exists for the caller.

    `path` is a prefix of `places.path`: "/" is everything, None is no place at all.
    """

    path: str | None
    residents: tuple[int, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """Return the parameters `path` and `residents` that scoped queries name."""
        return {"path": self.path, "residents": list(self.residents)}


EVERYTHING = Scope("/")
