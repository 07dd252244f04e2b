"""TLS in front of a server of ours, whose own program was built without it."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def make_certificate(folder: Path, name: str) -> Path:
    """Make a certificate for `localhost` that signs itself; its key is in the file."""
    path, key = folder / f"{name}.pem", folder / f"{name}.key"
    key_kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    request = ["openssl", "req", "-x509", "-days", "2", *key_kind, *names]
    files = ["-keyout", str(key), "-out", str(path)]
    subprocess.run([*request, *files], check=True, stderr=subprocess.DEVNULL)
    path.write_text(path.read_text() + key.read_text())
    return path


@contextmanager
def tls(port: int, certificate: Path, client: Path | None = None) -> Iterator[int]:
    """Carry what comes over TLS to `port`, and give the port for it.

    With `client` only those are let in who show that certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if client is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(_listen(port, context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _listen(port: int, context: ssl.SSLContext) -> asyncio.Server:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, answers = await asyncio.open_connection("127.0.0.1", port)
        with suppress(OSError):
            await asyncio.gather(_pipe(reader, answers), _pipe(there, writer))

    return await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()
