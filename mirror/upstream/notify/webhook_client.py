"""POST of a notification to an address of the configuration."""

from collections.abc import Mapping

import aiohttp

from mirror.util.tracebacks import reason_of

# Time for the whole request, in seconds.
SECONDS = 10.0


class WebhookFailed(Exception):
    """The notification was not taken; the message says why."""


async def post(url: str, headers: Mapping[str, str], body: str) -> None:
    """Send a notification. Raises WebhookFailed for any answer but 2xx; no redirect is followed."""
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(url, data=body.encode(), headers=headers, allow_redirects=False) as answer,
        ):
            if not 200 <= answer.status < 300:
                raise WebhookFailed(f"it answered {answer.status}")
    except TimeoutError:
        raise WebhookFailed(f"it gave no answer in {SECONDS:.0f} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise WebhookFailed(reason_of(error)) from None
