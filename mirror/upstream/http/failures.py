"""Failures that exceptions of aiohttp, OpenSSL and the system stand for, in words for operators and clients.

No message quotes an exception's own text where it may hold a URL: signatures are in those (invariant 6).
"""

import errno
import os
import re
import ssl

import aiohttp
from yarl import URL

from mirror.oci.header_fault import header_fault
from mirror.system.descriptors import EXHAUSTED, are_exhausted
from mirror.upstream.errors import Failure
from mirror.upstream.http.resolver import PrivateAddress

# OpenSSL's reasons when the first bytes of the answer are no TLS record.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL"})
# X509_V_ERR_* of certificates whose issuer is not known: 2, 20, 21 unable to get it, 18, 19 self-signed.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
# What Python puts around OpenSSL's words: "[SSL: REASON] words (_ssl.c:1006)".
_AROUND_WORDS = re.compile(r"^\[[^]]*\]\s*|\s*\(_ssl\.c:\d+\)$")

# Errors of a machine that lacks descriptors, memory or free ports: no upstream is at fault.
_OWN = EXHAUSTED | {errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


def is_own(error: Exception) -> bool:
    """Return whether `error` is a want of this machine, which has not asked the upstream at all.

    A failed look-up of a name may have another error than that of the descriptor that the resolver lacked.
    """
    cause = _system_error(error)
    if isinstance(error, aiohttp.ClientConnectorDNSError) and are_exhausted():
        return True
    return cause is not None and cause.errno in _OWN


def has_hung_up(error: Exception) -> bool:
    """Return whether the server took the connection and closed it without an answer."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    return isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError | BrokenPipeError)


def describe(error: Exception, url: URL) -> tuple[Failure, str]:
    """Return the failure that `error`, raised by a request to `url`, stands for, and the reason."""
    cause = _system_error(error)
    match error:
        case aiohttp.ConnectionTimeoutError():
            return Failure.TIMEOUT, "connecting took too long"
        case TimeoutError():
            return Failure.TIMEOUT, "the answer took too long"
        case _ if isinstance(cause, PrivateAddress):
            return Failure.INVALID, str(cause)
        case aiohttp.ClientConnectorCertificateError():
            return Failure.UNREACHABLE, _certificate_words(error)
        case aiohttp.ClientConnectorDNSError():
            return Failure.UNREACHABLE, f"cannot resolve the host name {error.host}: {reason(error.os_error)}"
        case aiohttp.ClientProxyConnectionError():
            return (
                Failure.UNREACHABLE,
                f"the proxy {error.host}:{error.port} does not answer: {_system_words(cause)}",
            )
        case aiohttp.ClientHttpProxyError():
            return Failure.UNREACHABLE, f"the proxy refused with status {error.status}"
        case aiohttp.ClientResponseError():
            if fault := header_fault(error.message):
                return Failure.INVALID, f"the head of the answer is wrong: {fault}"
            hint = ": use https:// if this server speaks TLS" if url.scheme == "http" else ""
            return Failure.INVALID, f"the answer is not HTTP{hint}"
        case aiohttp.ClientPayloadError():
            return Failure.UNREACHABLE, "the connection broke in the middle of the answer"
        case aiohttp.ServerDisconnectedError():
            return Failure.UNREACHABLE, "the connection was closed without an answer"
        case OSError():
            return Failure.UNREACHABLE, _system_words(cause)
        case ValueError():
            return Failure.INVALID, "not a URL that can be asked"
    return Failure.UNREACHABLE, type(error).__name__


def _system_error(error: Exception) -> OSError | None:
    """Return the exception of OpenSSL or of the system that aiohttp wrapped, or `error` if that is one."""
    for each in (getattr(error, "os_error", None), error.__cause__, error):
        if isinstance(each, OSError):
            return each
    return None


def _certificate_words(error: aiohttp.ClientConnectorCertificateError) -> str:
    why = getattr(error.certificate_error, "verify_message", "").rstrip(".") or "no reason given"
    words = f"the TLS certificate of {error.host} is not trusted: {why}"
    if getattr(error.certificate_error, "verify_code", None) in _UNKNOWN_ISSUER:
        words += "; if it is of a private CA, set ca_file to the certificate of that CA"
    return words


def _system_words(error: OSError | None) -> str:
    if error is None:
        return "connection failed"
    if isinstance(error, ssl.SSLError):
        plain = getattr(error, "reason", None) in _NO_TLS
        return "this server speaks plain HTTP: use http://" if plain else f"TLS failed: {reason(error)}"
    # asyncio puts a sentence and the address in the place of the system's words; resolvers count below zero.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or "connection failed"


def reason(error: OSError) -> str:
    """Return the words of the system or of OpenSSL, without the numbers around them."""
    return _AROUND_WORDS.sub("", error.strerror or "") or "no reason given"
