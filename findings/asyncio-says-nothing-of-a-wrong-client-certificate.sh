#!/usr/bin/env bash
# Python 3.11.7 asyncio: a TLS server says nothing of a client certificate that it refuses, neither to the client nor in a log.
#
# A good guess is that the client gets the alert `unknown ca`, as from any TLS server, and that the exception is
# logged or given to the loop's exception handler. The same context on blocking sockets does send the alert. In
# asyncio the handshake's exception goes to a handler in debug mode only, and the alert that OpenSSL has written
# stays in the outgoing buffer: clients see `Empty reply from server`, `Connection reset`, or `EOF` in Docker's
# words. Servers on top of it, such as aiohttp, are no different.
#
# Who meets this: everyone who asks for client certificates with asyncio, and looks for the reason of an EOF. Call
# `loop.connect_accepted_socket` to get the exception; an `sslobject_class` can send what is in the buffer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for name in server other; do # two authorities, each of which is its own certificate
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj "/CN=$name" \
        -addext subjectAltName=IP:127.0.0.1 -keyout "$name.key" -out "$name.crt" 2>/dev/null
done
cat >try.py <<'PY'
import asyncio, logging, socket, ssl, sys, threading

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="LOGGED %(name)s %(message)s")
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="server.crt")
server.load_cert_chain("server.crt", "server.key")
server.verify_mode = ssl.CERT_OPTIONAL
client = ssl.create_default_context(cafile="server.crt")
client.load_cert_chain("other.crt", "other.key")


def told(port: int) -> str:
    """Connect with the certificate of the other authority; return what the client is told."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            with client.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
                return f"end, {tls.recv(100)!r}"
    except ssl.SSLError as error:
        return str(error.reason)
    except OSError as error:
        return type(error).__name__


async def by_asyncio() -> str:
    handled = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: handled.append(context))
    serving = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=server)
    said = await asyncio.to_thread(told, serving.sockets[0].getsockname()[1])
    await asyncio.sleep(0.5)
    serving.close()
    return f"{said}; exception handler called {len(handled)} times"


def by_threads() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            try:
                server.wrap_socket(connection, server_side=True)
            except ssl.SSLError as error:
                print("raised", error.reason)

        threading.Thread(target=accept, daemon=True).start()
        return told(listener.getsockname()[1])


print("threads:", by_threads())
print("asyncio:", asyncio.run(by_asyncio()))
PY
python3 --version
python3 try.py | grep -v "Using selector" | tee seen
grep -q '^threads: .*UNKNOWN_CA' seen
grep -q '^asyncio: .*called 0 times' seen
! grep -q -e '^asyncio: .*UNKNOWN_CA' -e '^LOGGED' seen
