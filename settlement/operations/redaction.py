"""Redaction: what is written down of a command must hold no password.

A path of a log may be a URL with a password in it or a signed query, a cluster's setting may
be a key, and whoever knows the address of a ping can send one.
"""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

SECRET = ("on_success", "on_failure", "on_review", "ping", "conf")
"""Options of which only the name is written down."""
HIDDEN = "…"
_URL = re.compile(
    r"""(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/\s@'"]*@)?"""
    r"""(?P<place>[^\s?'"]*)(?P<query>\?[^\s'"]*)?"""
)


def text(said: str) -> str:
    """Return a text without the user, password and query of any URL in it."""
    return _URL.sub(_plain, said)


def _plain(url: re.Match[str]) -> str:
    user = f"{HIDDEN}@" if url["user"] else ""
    query = f"?{HIDDEN}" if url["query"] else ""
    return f"{url['scheme']}{user}{url['place']}{query}"


def command(words: Iterable[str]) -> list[str]:
    """Return the words of a command line as they were typed, without what is secret."""
    said, secret = [], False
    flags = {f"--{name.replace('_', '-')}" for name in SECRET}
    for word in words:
        name, equals, _ = word.partition("=")
        if secret:
            said.append(HIDDEN)
        elif equals and name in flags:
            said.append(f"{name}={HIDDEN}")
        else:
            said.append(text(word))
        secret = not secret and word in flags
    return said


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON values: whole numbers and switches as they are, the rest as text."""
    return {
        name: HIDDEN if name in SECRET and value else _described(value)
        for name, value in given.items()
    }


def _described(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple):
        return [_described(each) for each in value]
    if isinstance(value, Fraction):
        return str(value)
    return text(str(getattr(value, "text", value)))
