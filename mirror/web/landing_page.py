"""The page at `/` for a browser: what this server is, and how to point clients at it.

Only a browser gets the page: GET or HEAD of `/` with `Accept: text/html`. Any other request takes its usual
path. The page has no script and loads nothing; its policy (CSP) allows its own style sheet and no more.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape

from aiohttp import web

from mirror import __version__
from mirror.system.sockets import format_address
from mirror.web.responses import SERVER

# HOST or HOST:PORT as in a Host header (RFC 9110 7.2), IPv6 in brackets; nothing else is shown.
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")

STYLE = """
:root {
  color-scheme: light dark;
  --text: #1d2129; --soft: #5b6472; --back: #fff; --code: #f3f5f8; --link: #0b57d0
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7ec; --soft: #9aa4b2; --back: #14171c; --code: #1f242c; --link: #8ab4f8 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 46rem; margin: 0 auto; padding: 2.5rem 1.25rem 3rem }
h1 { font-size: 1.7rem; margin: 0 }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem }
p { margin: .4rem 0 } small, .soft { color: var(--soft) }
code, pre { font: .875em/1.5 ui-monospace, monospace; background: var(--code); border-radius: 6px }
code { padding: .1em .35em; overflow-wrap: anywhere }
pre { padding: .8rem 1rem; margin: .5rem 0; overflow-x: auto } pre code { padding: 0; overflow-wrap: normal }
a { color: var(--link) } nav a { margin-right: 1.2rem }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

HEADERS = {
    **SERVER,
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>registry-mirror at {host}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<h1>registry-mirror <small>{version}</small></h1>
<p>A pull-through mirror and cache for container registries. It serves images to
Docker, containerd, Podman and others, and fetches each image once from its registry.</p>
<nav>{probes}</nav>

<h2>Try it</h2>
<pre><code>docker pull {host}/{default}/{image}</code></pre>
<p class="soft">Mirrored here: {upstreams}.</p>

<h2>Docker</h2>
<p><code>/etc/docker/daemon.json</code>, then <code>systemctl reload docker</code>.</p>
<pre><code>{docker}</code></pre>
<p class="soft">Other registries by name: <code>docker pull {host}/REGISTRY/IMAGE</code>.</p>

<h2>containerd and Kubernetes</h2>
<p>For all registries: <code>/etc/containerd/certs.d/_default/hosts.toml</code>. For Kubernetes containerd
also needs <code>config_path = "/etc/containerd/certs.d"</code> in its configuration.</p>
<pre><code>[host."{scheme}://{host}"]
  capabilities = ["pull", "resolve"]</code></pre>

<h2>Podman, Buildah, CRI-O</h2>
<p><code>/etc/containers/registries.conf.d/50-mirror.conf</code>, one block for each registry.</p>
<pre><code>[[registry]]
prefix = "{default}"
location = "{default}"

[[registry.mirror]]
location = "{host}"{insecure}</code></pre>
{tls}
<h2>By a script</h2>
<p>Read it before you run it: {scripts}. On a machine with registry-mirror:
<code>registry-mirror setup docker --mirror {scheme}://{host}</code>.</p>
<p class="soft">More clients and details: <code>docs/clients.md</code> in the source of registry-mirror.</p>
</main>
</body>
</html>
"""

INSECURE = "\ninsecure = true"
SCRIPTS = ("docker", "containerd", "podman", "k3s")
TLS_NOTE = """<p class="soft">A client needs the CA of a certificate that a private CA has signed,
for instance in <code>/etc/docker/certs.d/{host}/ca.crt</code> for Docker.</p>"""


class LandingPage:
    """Handler of `/`. `upstreams`: names of the mirrored registries, the default one first.

    `probes`: whether clients may read /readyz and /metrics.
    """

    def __init__(self, upstreams: Sequence[str], *, probes: bool = True) -> None:
        self._upstreams = upstreams
        paths = ("/healthz", "/readyz", "/metrics") if probes else ("/healthz",)
        self._probes = "".join(f'<a href="{each}">{each}</a>' for each in paths)

    def answer(self, request: web.BaseRequest) -> web.Response | None:
        """Return the page for a browser that asks for `/`; None for any other request."""
        if request.path != "/" or request.method not in ("GET", "HEAD"):
            return None
        if "text/html" not in request.headers.get("Accept", ""):
            return None
        text = self._render(_host(request), secure=_is_tls(request))
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=HEADERS)

    def _render(self, host: str, *, secure: bool) -> str:
        scheme, shown = "https" if secure else "http", escape(host)
        # Docker's mirror setting is for docker.io only, and does not name it: only the default is asked.
        hub = self._upstreams[0] == "docker.io"
        lines = [f'  "registry-mirrors": ["{scheme}://{shown}"]'] if hub else []
        if not secure:
            lines.append(f'  "insecure-registries": ["{shown}"]')
        return PAGE.format(
            style=STYLE,
            probes=self._probes,
            version=escape(__version__),
            host=shown,
            scheme=scheme,
            image="library/busybox" if hub else "IMAGE",
            default=escape(self._upstreams[0]),
            upstreams=", ".join(f"<code>{escape(each)}</code>" for each in self._upstreams),
            docker="{\n" + ",\n".join(lines) + "\n}",
            insecure="" if secure else INSECURE,
            scripts=", ".join(f'<a href="/setup/{each}.sh">{each}.sh</a>' for each in SCRIPTS),
            tls=TLS_NOTE.format(host=shown) if secure else "",
        )


def _host(request: web.BaseRequest) -> str:
    """Return the address that the visitor used, or, if the Host header is not one, the socket's own."""
    host = request.headers.get("Host", "")
    if HOST.fullmatch(host):
        return host
    transport = request.transport
    return format_address(transport.get_extra_info("socket")) if transport is not None else "localhost"


def _is_tls(request: web.BaseRequest) -> bool:
    return request.transport is not None and request.transport.get_extra_info("ssl_object") is not None
