"""Recognise secrets by the name of their key or as a part of a URL, and hide them in messages. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clan_discovery.model import Json

HIDDEN: Final = "***"
# Compiled at the first use, which most runs never reach.
_WORDS: Final = "passw(?:or)?d|passphrase|secret|token|credential|authorization|bearer|api[_-]?key|private[_-]?key"
_NAME: Final = f"(?i){_WORDS}"
_LAST_WORD: Final = f"(?i)(?:{_WORDS}|key|value)s?[0-9]*$"
_ABOUT: Final = "(?i)(?:file|path|type|ref|name)$"  # `password_file` holds a path
_USERINFO: Final = r"(:/{1,2})([^/?#\s'\"]*)@"
_IN_QUERY: Final = r"(?i)([?&][\w-]{0,40}(?:token|secret|passwd|password|api_?key)[\w-]{0,40}=)[^&#\s'\"]+"


def is_secret(name: str) -> bool:
    """Tell whether the value under this key is probably a secret: `password`, `bearer_token`, `credentials`."""
    return re.search(_NAME, name[:200]) is not None and re.search(_ABOUT, name[-20:]) is None


_NAMED: Final = frozenset(
    {
        "alertmanager",
        "dns",
        "exporters",
        "grafana",
        "instances",
        "jobs",
        "loki",
        "machines",
        "scrapers",
        "static",
        "tags",
        "tailscale",
        "targets",
        "victorialogs",
    }
)
"""Keys of a config or an inventory with names below them that the user chose."""
_FREE: Final = frozenset({"params", "labels", "additionalScrapeConfigs"})
"""Keys with foreign settings below them, which this program does not interpret."""


def exposes(name: str, value: str) -> bool:
    """Tell whether a value that everybody can read is a secret, by the last word of its key or as a URL.

    Stricter than `is_secret`, which would rather hide too much: a `token_bucket` is not a secret here.
    """
    return has_secret(value) or (is_secret(name) and re.search(_LAST_WORD, name[-40:]) is not None)


def holds_secret(path: Iterable[str | int]) -> bool:
    """Tell whether a key in a path names a secret. A name that the user chose counts only if it comes last."""
    keys = list(map(str, path))
    for index, key in enumerate(keys):
        if key in _FREE:
            return any(map(is_secret, keys[index:]))
        is_chosen = 0 < index < len(keys) - 1 and keys[index - 1] in _NAMED
        if is_secret(key) and not is_chosen:
            return True
    return False


def hide(value: Json) -> Json:
    """Return a value in which everything below the key of a secret is hidden."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if is_secret(key) else hide(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [hide(part) for part in value]
    return value


def hide_in_urls(text: str) -> str:
    """Hide passwords and tokens in the URLs of a text; the user of an ssh URL (`git@`) is not a secret."""
    if ":/" not in text and "?" not in text:  # one slash where a URL was taken for a path; a path has a query, too
        return text
    return re.sub(_IN_QUERY, rf"\1{HIDDEN}", re.sub(_USERINFO, _without_userinfo, text))


def has_secret(url: str) -> bool:
    """Tell whether a URL holds a password or a token."""
    return hide_in_urls(url) != url


def _without_userinfo(found: re.Match[str]) -> str:
    before = found.string[max(found.start() - 3, 0) : found.start()]
    if before == "ssh" and ":" not in found[2]:
        return found[0]
    return f"{found[1]}{HIDDEN}@"
