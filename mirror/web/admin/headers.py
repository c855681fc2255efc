"""Headers of the pages and of their API: a browser loads nothing from elsewhere, and runs nothing inline."""

from mirror.web.responses import SERVER

COMMON = {
    **SERVER,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}

API_HEADERS = {**COMMON, "Cache-Control": "no-store"}
PAGE_HEADERS = API_HEADERS

# Files of the package have their hash in the address.
STATIC_HEADERS = {**COMMON, "Cache-Control": "public, max-age=31536000, immutable"}
