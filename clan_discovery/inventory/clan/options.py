"""Read single options of merged settings, and collect complaints. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from clan_discovery.inventory.clan.decode import is_list, kind, shown
from clan_discovery.inventory.clan.keys import Misspellings
from clan_discovery.syntax.endpoint import MAX_PORT
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clan_discovery.inventory.clan.keys import Keys
    from clan_discovery.model import Json, Pairs, Severity

Word = TypeVar("Word", bound=str)


class Complaint(NamedTuple):
    """A wrong option, what is wrong with it, and how to fix it."""

    option: str
    what: str
    hint: str | None = None
    severity: Severity = "error"


class SettingsReader(msgspec.Struct, frozen=True):
    """Reads one attribute set of settings.

    `path` is the option that holds it; empty for the whole settings. If an option is missing or null, each method
    returns None or an empty value, without a complaint.
    """

    settings: Mapping[str, Json]
    complaints: list[Complaint] = []
    path: str = ""
    suggester: Suggester = msgspec.field(default_factory=Suggester)
    misspellings: Misspellings = msgspec.field(default_factory=Misspellings)

    def complain(self, option: str, what: str, hint: str | None = None) -> None:
        """Add a complaint about an option; "" means the whole attribute set."""
        self.complaints.append(Complaint(self._full(option), what, hint))

    def _full(self, option: str) -> str:
        return ".".join(filter(None, (self.path, option)))

    def warn_of_misspelt(self, keys: Keys) -> None:
        """Add a warning about each option that is probably misspelt."""
        for option, hint in self.misspellings.among(self.settings, keys):
            warning = Complaint(self._full(option), "unknown setting, ignored", hint, "warning")
            self.complaints.append(warning)

    def shown(self, option: str, value: Json) -> str:
        """Format the value of an option for a message; a secret is not shown."""
        return shown(value, (*self.path.split("."), *option.split(".")))

    def below(self, option: str, settings: Mapping[str, Json]) -> SettingsReader:
        """Return a reader of the attribute set in an option; it shares the complaints."""
        return SettingsReader(settings, self.complaints, self._full(option), self.suggester, self.misspellings)

    def flag(self, option: str) -> bool | None:
        """Return true or false."""
        value = self.settings.get(option)
        if value is None or isinstance(value, bool):
            return value
        self.complain(option, f"must be true or false, not {self.shown(option, value)}")
        return None

    def port(self, option: str = "port") -> int | None:
        """Return a port, a number from 1 to 65535."""
        value = self.settings.get(option)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PORT:
            return value
        if value is not None:
            self.complain(option, f"invalid port {shown(value)}: must be 1 to {MAX_PORT}")
        return None

    def word(self, option: str, words: Sequence[Word], noun: str) -> Word | None:
        """Return one of several words."""
        value = self.settings.get(option)
        if value is None:
            return None
        return self.one_of(option, value, words, noun)

    def one_of(self, option: str, value: Json, words: Sequence[Word], noun: str) -> Word | None:
        """Return which of several words a value is."""
        for word in words:
            if value == word:
                return word
        hint = self.suggester.did_you_mean(value, words) if isinstance(value, str) else None
        self.complain(option, f"{self.shown(option, value)} is no {noun}", hint or f"one of {', '.join(words)}")
        return None

    def checked(self, option: str, noun: str, complaint_of: Callable[[str], str | None]) -> str | None:
        """Return a string that passes a check."""
        value = self.settings.get(option)
        if value is None:
            return None
        if not isinstance(value, str):
            self.complain(option, f"{self.shown(option, value)} is no {noun}")
            return None
        if complaint := complaint_of(value):
            self.complain(option, complaint)
            return None
        return value

    def string(self, option: str) -> str | None:
        """Return a string, or the only element of a list.

        Prometheus writes URL parameters as such lists.
        """
        return self._string(option, self.settings.get(option))

    def _string(self, option: str, value: Json) -> str | None:
        match value:
            case None | str():
                return value
            case [str(only)]:
                return only
            case _:
                self.complain(option, f"must be one string, not {self.shown(option, value)}")
                return None

    def strings(self, option: str) -> Pairs:
        """Return an attribute set of strings."""
        found = self.attributes(option, "strings")
        pairs = [(name, self._string(f"{option}.{name}", value)) for name, value in found.items()]
        return tuple((name, text) for name, text in pairs if text is not None)

    def attributes(self, option: str, of: str, hint: str | None = None) -> Mapping[str, Json]:
        """Return an attribute set."""
        value = self.settings.get(option)
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self.complain(option, f"must be an attribute set of {of}, not {kind(value)}", hint)
        return {}

    def elements(self, option: str, value: Json, of: str) -> Sequence[Json]:
        """Return the elements of an option's list."""
        if is_list(value):
            return value
        if value is not None:
            self.complain(option, f"must be a list of {of}, not {kind(value)}")
        return ()

    def refuse_unknown(self, known: Iterable[str], hint: str) -> None:
        """Complain about every option that is not known."""
        for unknown in sorted(self.settings.keys() - set(known)):
            self.complain(unknown, "unknown option", self.suggester.did_you_mean(unknown, known) or hint)
