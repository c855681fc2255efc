"""The edge: HTTP requests in, OCI answers out."""

import mimetypes

# aiohttp.web reads the system's tables of file types when it is imported: 6 ms of the start, for responses
# from files by name, of which this package has none.
mimetypes.knownfiles.clear()
