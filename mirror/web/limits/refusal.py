"""The refusal of a request by a limit."""

import math

from mirror.access.limits import Limit
from mirror.oci.errors import Code, RegistryError


class LimitExceeded(RegistryError):
    """A request beyond a limit. `bound`: the option of the limit. `note`: for the access line."""

    def __init__(self, limit: Limit, bound: str, message: str, retry_after: float | None = None) -> None:
        """`retry_after`: seconds; None where waiting does not help."""
        code = Code.DENIED if retry_after is None else Code.TOOMANYREQUESTS
        headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        super().__init__(code, f"{message} (limit {limit.name!r} of this mirror)", headers=headers)
        self.limit = limit
        self.bound = bound
        self.note = f"limited by {limit.name}: {bound}"
