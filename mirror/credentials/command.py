"""Output of `password_command`: a password, or JSON with a password and the time at which it ends."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mirror.credentials.credential import Answer, CredentialError, checked
from mirror.credentials.process import Finished
from mirror.oci import json_text

_MOST_VALUES = 100


def answer_of(
    name: str,
    username: str,
    finished: Finished,
    fresh: float,
    clock: Callable[[], float] = time.time,
) -> Answer:
    """Return the credentials that the program `name` has printed. Raises CredentialError.

    `fresh`: seconds for which a password is used whose end the output does not tell.
    """
    if finished.status != 0:
        raise CredentialError(
            f"{name} ended with status {finished.status}: run it as the mirror's user to see its words"
        )
    try:
        text = finished.output.decode().strip()
        if text.startswith("{"):
            return _from_json(username, text, fresh, clock)
        if "\n" in text:
            raise ValueError("there is a line break in them: is it a password alone?")
        return Answer(checked(username, text), fresh=fresh)
    except UnicodeDecodeError:
        raise CredentialError(f"{name} printed something else than text") from None
    except ValueError as error:
        raise CredentialError(f"{name} printed credentials that cannot be used: {error}") from None


def _from_json(username: str, text: str, fresh: float, clock: Callable[[], float]) -> Answer:
    """Return the credentials of an object with password and perhaps username and expires."""
    try:
        document = json_text.parse(text.encode(), _MOST_VALUES)
    except ValueError:
        raise ValueError("the output begins with a brace and is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("the output is no object")
    name = document.get("username") or document.get("Username") or username
    secret = document.get("password") or document.get("Secret")
    if not isinstance(name, str) or not isinstance(secret, str):
        raise ValueError("the JSON has no text called password")
    lifetime = _lifetime(document, clock)
    if not lifetime > 0:  # also a number that is none
        raise ValueError("they have expired already; is this machine's clock right?")
    return Answer(checked(name, secret), fresh=fresh if lifetime == math.inf else lifetime, lifetime=lifetime)


def _lifetime(document: dict[str, Any], clock: Callable[[], float]) -> float:
    """Return how long the credentials are valid, in seconds; infinity if the output does not tell."""
    seconds, moment = document.get("expires_in"), document.get("expires")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return float(seconds)
    if isinstance(moment, int | float) and not isinstance(moment, bool):
        return float(moment) - clock()
    if isinstance(moment, str) and moment:
        try:
            parsed = datetime.fromisoformat(moment)
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() - clock()
        except (ValueError, OverflowError):
            raise ValueError("expires is no time, for instance 2030-01-31T12:00:00Z") from None
    return math.inf
