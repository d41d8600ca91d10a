"""The errors asof raises: one small tree; every message says what failed, the value, and the mend."""

from difflib import get_close_matches


class AsofError(Exception):
    """The root of every error that asof raises on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class DefinitionError(AsofError):
    """A feature, flag, operator call or feature set that the language does not allow."""

    exit_code = 3


class UnknownName(DefinitionError, AttributeError):
    """A column or operator that does not exist."""


class VersionConflict(DefinitionError):
    """A registered version whose definition has changed; versions are immutable."""


class DataError(AsofError):
    """Rows, files or columns that cannot be used."""

    exit_code = 4


class StoreError(AsofError):
    """A store that cannot be opened, read or written."""

    exit_code = 5


class RowsRefused(StoreError):
    """Rows that a store refuses for what they hold: to write them again is of no use."""


class Overtaken(StoreError):
    """A position that is not where its reader left it: another reader of the same has moved it."""


class Overloaded(StoreError):
    """A service that has as much to do as it takes on: to ask again in a moment is of use."""


class AccessError(AsofError):
    """A service that does not let in who asks, or not to that."""

    exit_code = 9


class Unauthenticated(AccessError):
    """A service that asks for a key, and was given none, or one that is wrong, expired or revoked."""


class IssuerError(AccessError):
    """An issuer of tokens that cannot be asked for its keys, so that no token can be checked: to ask again in a moment is of use."""


class BrokerError(AsofError):
    """A broker that cannot be reached, or that refuses what it is asked."""

    exit_code = 8


class NotFound(AsofError):
    """A feature set, instrument or table that is not there."""

    exit_code = 6


class MissingExtra(AsofError):
    """An optional dependency that is not installed."""

    exit_code = 7


class Stopped(Exception):
    """Work that was told to stop, in the middle of it. No error: nobody is told."""


def did_you_mean(word: str, known: "list[str] | tuple[str, ...]") -> str:
    """`"; did you mean 'x'?"` for the nearest of `known`, or an empty string."""
    near = get_close_matches(word, known, n=1, cutoff=0.5 if len(word) < 4 else 0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
