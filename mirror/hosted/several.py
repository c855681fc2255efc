"""An answer with several errors, one for each thing that is wrong."""

import json
from collections.abc import Sequence

from mirror.oci.errors import RegistryError


class SeveralErrors(RegistryError):
    """Errors of one answer; status and code are those of the first."""

    def __init__(self, errors: Sequence[RegistryError]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(first.code, first.message + more, status=first.status, detail=first.detail)
        self.errors = tuple(errors)

    def body(self) -> bytes:
        """Return the errors as the JSON document of the distribution-spec."""
        found = {"errors": [each.fields() for each in self.errors]}
        return json.dumps(found, separators=(",", ":")).encode()
