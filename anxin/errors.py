"""Every error that Anxin raises on purpose.

The docstring of a class is the message that a person reads; arguments add what was seen.
"""


class AnxinError(Exception):
    """Anxin could not do this."""

    def __str__(self) -> str:
        """Return the class's own sentence, or the more exact one given to it."""
        return super().__str__() or (self.__doc__ or "").strip()


class SettingError(AnxinError):
    """A setting is wrong. Correct it and start again."""


class PortTaken(AnxinError):
    """The port is in use. Stop the other program or choose another port."""


class DatabaseUnavailable(AnxinError):
    """The database does not answer. It is tried again until it does."""


class Conflict(AnxinError):
    """This clashes with what is already stored."""


class NotFound(AnxinError):
    """There is nothing of this id, or you may not see it."""


class Refused(AnxinError):
    """The database refuses this: it is not yours to see or to change."""


class BadPayload(AnxinError):
    """The payload cannot be used."""
