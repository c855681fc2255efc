"""The protocol of Docker's credential helpers: `docker-credential-NAME get`, the server on standard input.

Helpers differ from what their protocol says:

- `docker-credential-pass` answers an unknown server with status 0 and an empty login, which is none.
- `docker-credential-ecr-login` says NOT_FOUND for a host that is no ECR, where AWS credentials are missing,
  and where AWS is not reached; the reason is in ~/.ecr/log alone. So NOT_FOUND proves nothing.
- All of them write errors to standard output, where the secret is otherwise. So only known errors are quoted.
"""

from collections.abc import Mapping, Sequence

from mirror.credentials import process
from mirror.credentials.credential import Answer, Credential, CredentialError, checked
from mirror.oci import json_text

PREFIX = "docker-credential-"

NOT_FOUND = "credentials not found in native keychain"
# By docker-credential-pass, also where the key is there and the passphrase is not.
DECRYPTION = "exit status 2: gpg: decryption failed"
# Beginnings of errors that have no secret in them.
KNOWN = (
    NOT_FOUND,
    "no credentials server URL",
    "no credentials username",
    "pass not initialized",
    DECRYPTION,
)

# The name with which a helper says that its secret is an identity token.
TOKEN_USER = "<token>"  # noqa: S105  # a word of the protocol

# Seconds for which it is believed that a helper has no login, where a failure of its own would look the same.
DOUBTED = 60.0

_MOST_VALUES = 100


async def ask(helper: str, servers: Sequence[str], environment: Mapping[str, str], fresh: float) -> Answer:
    """Return the login of the first server that the helper knows. Raises CredentialError.

    `fresh`: seconds for which the answer is used; that a helper may have failed is not believed for long.
    """
    program, doubtful = process.Program((f"{PREFIX}{helper}", "get"), environment), False
    for server in servers:
        finished = await process.run(program, server.encode())
        found = login_in(program.name, server, finished)
        if found is not None:
            return Answer(found, fresh=fresh)
        doubtful = doubtful or finished.status != 0
    fresh = min(fresh, DOUBTED) if doubtful else fresh
    return Answer(None, fresh=fresh, note=absence(helper, servers), doubtful=doubtful)


def login_in(name: str, server: str, finished: process.Finished) -> Credential | None:
    """Return the login in the answer of the helper `name`. Raises CredentialError."""
    if finished.status != 0:
        words = finished.output[:1000].decode("utf-8", "replace").strip()
        if words == NOT_FOUND:
            return None
        known = next((f": {each}" for each in KNOWN if words.startswith(each)), "")
        raise CredentialError(
            f"{name} ended with status {finished.status}{known}; its words: echo {server} | {name} get"
        )
    try:
        document = json_text.parse(finished.output, _MOST_VALUES)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise CredentialError(f"{name} answered with something else than JSON: is it a credential helper?")
    username, secret = document.get("Username") or "", document.get("Secret") or ""
    if not isinstance(username, str) or not isinstance(secret, str):
        raise CredentialError(f"{name} answered with a Username or Secret that is no text")
    if not secret:
        return None
    try:
        return checked(username, secret, identity=username == TOKEN_USER, place=f"{name} get {server}")
    except ValueError as error:
        raise CredentialError(f"{name} answered with credentials that cannot be used: {error}") from None


def absence(helper: str, servers: Sequence[str]) -> str:
    """Return the note about a helper that knows none of the servers."""
    note = f"{PREFIX}{helper} has no login for {' nor '.join(servers)}"
    if helper == "ecr-login":
        note += "; it says the same if it finds no AWS credentials or no way to AWS, and which in ~/.ecr/log"
    return note
