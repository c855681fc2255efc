"""An OpenID Connect issuer with real keys, and the claims that well-known issuers send."""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any, Self

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.api_jws import PyJWS

from tests.fakes.site import Seen, Site

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

AUDIENCE = "https://mirror.lan:5000"

# A key takes a tenth of a second or more: one for all tests of a process.
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

# Claims as the documentation of each issuer has them; iss, aud and the times are added.
GITLAB: dict[str, Any] = {
    "sub": "project_path:org/app:ref_type:branch:ref:main",
    "namespace_id": "72",
    "namespace_path": "org",
    "project_id": "20",
    "project_path": "org/app",
    "user_login": "alice",
    "pipeline_source": "push",
    "ref": "main",
    "ref_type": "branch",
    "ref_protected": "true",
    "groups_direct": ["org", "org/team"],
    "runner_id": 1,
    "runner_environment": "self-hosted",
}
GITHUB: dict[str, Any] = {
    "sub": "repo:octo-org/octo-repo:environment:prod",
    "environment": "prod",
    "ref": "refs/heads/main",
    "repository": "octo-org/octo-repo",
    "repository_owner": "octo-org",
    "actor": "octocat",
    "workflow": "build",
    "job_workflow_ref": "octo-org/automation/.github/workflows/oidc.yml@refs/heads/main",
    "repository_visibility": "private",
    "run_attempt": "2",
}
KUBERNETES: dict[str, Any] = {
    "sub": "system:serviceaccount:ci:builder",
    "kubernetes.io": {
        "namespace": "ci",
        "pod": {"name": "build-0", "uid": "eb9be5d5-9b7e-4a6b-8b7d-4b0d6f2f3c1a"},
        "serviceaccount": {"name": "builder", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33"},
        "warnafter": 1700000000,
    },
}


def jwk(key: PrivateKey, kid: str | None, algorithm: str | None = None) -> dict[str, Any]:
    """The public half of a key, as a key set has it."""
    if isinstance(key, rsa.RSAPrivateKey):
        public: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        public = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    extra = {"kid": kid, "alg": algorithm, "use": "sig"}
    return {**public, **{name: value for name, value in extra.items() if value is not None}}


def key_set(*keys: dict[str, Any]) -> bytes:
    """The document."""
    return json.dumps({"keys": keys}).encode()


def signed(
    claims: Mapping[str, Any],
    key: PrivateKey = RSA_KEY,
    algorithm: str = "RS256",
    kid: str | None = "one",
    **header: Any,
) -> str:
    """A token."""
    headers = {**({} if kid is None else {"kid": kid}), **header}
    return PyJWS().encode(json.dumps(dict(claims)).encode(), key, algorithm, headers)


def raw_token(header: object, claims: object, signature: bytes = b"signature") -> str:
    """A token of any header and claims, signed by nobody."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts)


class FakeIssuer:
    """An issuer on loopback: `async with FakeIssuer() as issuer`.

    `asked` are the paths of requests. `overrides`: values of the discovery document. `redirects`: paths that
    are answered with a redirect. `keys_document`: sent in place of the keys. `hold`: awaited before each
    answer.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.keys: list[dict[str, Any]] = [jwk(RSA_KEY, "one", "RS256"), jwk(EC_KEY, "two")]
        self.status = 200
        self.overrides: dict[str, Any] = {}
        self.redirects: dict[str, str] = {}
        self.keys_document: bytes | None = None
        self.hold: asyncio.Event | None = None
        self._site = Site(self._answer, tls)

    @property
    def url(self) -> str:
        return self._site.url

    @property
    def asked(self) -> list[str]:
        return [each.path for each in self._site.log]

    async def __aenter__(self) -> Self:
        await self._site.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._site.__aexit__(None, None, None)

    def token(
        self,
        claims: Mapping[str, Any] = GITLAB,
        key: PrivateKey = RSA_KEY,
        algorithm: str = "RS256",
        kid: str | None = "one",
        **changes: Any,
    ) -> str:
        """A token for the mirror; None in `changes` leaves a claim out."""
        now = time.time()
        whole = {**claims, "iss": self.url, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300}
        whole.update(changes)
        return signed({name: each for name, each in whole.items() if each is not None}, key, algorithm, kid)

    async def _answer(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        if self.hold is not None:
            await self.hold.wait()
        if request.path in self.redirects:
            return web.Response(status=302, headers={"Location": self.redirects[request.path]})
        if self.status != 200:
            return web.Response(status=self.status)
        if request.path.endswith("/.well-known/openid-configuration"):
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.overrides})
        if request.path == "/keys":
            keys = key_set(*self.keys) if self.keys_document is None else self.keys_document
            return web.Response(body=keys, content_type="application/json")
        return web.Response(status=404)
