"""The client against nginx and CPython's http.server, and beneath httpx2."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio
import trustme

from asyncnet import TunnelError, serve
from asyncnet.http import ClientTimeouts, HTTPClient, HTTPHandler, Request, Response, UpgradeRefused
from asyncnet.http.httpx import AsyncnetTransport
from asyncnet.stream import Stream

LARGE = bytes(range(256)) * 40_000

CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 256; }}
http {{
  access_log off; types {{ text/html html; application/octet-stream bin; }}
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{tls_port} ssl; listen unix:{folder}/socket;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    root {folder}/root; client_max_body_size 1m; keepalive_requests 5; gzip_min_length 1;
    location /coded/ {{ alias {folder}/root/; gzip on; gzip_types *; }}
    location = /moved {{ return 302 /page.html; }}
    location = /host {{ return 200 "$host $http_authorization"; }}
    location = /upload {{ proxy_pass http://127.0.0.1:{port}/discard; }}
    location = /discard {{ return 204; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Nginx:
    def __init__(self, folder: Path, port: int, tls_port: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.tls_url = f"https://localhost:{tls_port}"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Nginx]:
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "root").mkdir()
    (folder / "root" / "page.html").write_text("<p>hello</p>")
    (folder / "root" / "large.bin").write_bytes(LARGE)
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)  # its worker runs as somebody else where it was started by root
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    port, tls_port = free_ports(2)
    (folder / "conf").write_text(CONFIGURATION.format(folder=folder, port=port, tls_port=tls_port))
    with subprocess.Popen([program, "-c", str(folder / "conf"), "-e", "stderr"], stderr=subprocess.PIPE) as process:
        try:
            for _ in range(500):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    time.sleep(0.02)
            yield Nginx(folder, port, tls_port)
        finally:
            process.terminate()
            assert process.stderr is not None
            process.stderr.read()


async def test_nginx_serves_pages_over_kept_connections_and_over_new_ones_when_it_has_enough(nginx: Nginx) -> None:
    async with HTTPClient() as client:
        for _ in range(12):  # it closes after five
            response = await client.get(f"{nginx.url}/page.html")
            assert (response.status, response.text()) == (200, "<p>hello</p>")
            assert client.pool.connections <= 1
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(client.get, f"{nginx.url}/large.bin")
        assert client.pool.connections == client.pool.idle


async def test_nginx_s_codings_redirects_errors_and_head(nginx: Nginx) -> None:
    async with HTTPClient() as client:
        coded = await client.get(f"{nginx.url}/coded/large.bin")
        assert coded.headers["content-encoding"] == "gzip"
        assert coded.content == LARGE
        moved = await client.get(f"{nginx.url}/moved")
        assert (moved.text(), len(moved.history)) == ("<p>hello</p>", 1)
        assert (await client.get(f"{nginx.url}/none")).status == 404
        head = await client.head(f"{nginx.url}/large.bin")
        assert (head.headers["content-length"], head.content) == (str(len(LARGE)), b"")
        part = await client.get(f"{nginx.url}/large.bin", headers={"Range": "bytes=5-9"})
        assert (part.status, part.content) == (206, LARGE[5:10])


async def test_nginx_over_tls_and_over_a_unix_socket(nginx: Nginx, trusted: ssl.SSLContext) -> None:
    from asyncnet import connect

    async with HTTPClient(tls=trusted) as client:
        for _ in range(7):
            assert (await client.get(f"{nginx.tls_url}/large.bin")).content == LARGE
    async with HTTPClient() as client:
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.get(nginx.tls_url)  # the system does not know our authority
        assert client.pool.connections == 0
    async with HTTPClient(connect=lambda origin: connect(f"unix:{nginx.folder}/socket")) as client:
        assert (await client.get("http://app.example/host")).text() == "app.example "


async def test_nginx_takes_an_upload_and_refuses_one_that_is_too_large(nginx: Nginx) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(10_000)

    async with HTTPClient(timeouts=ClientTimeouts(head=10)) as client:
        assert (await client.post(f"{nginx.url}/upload", body=pieces(50))).status == 204
        assert (await client.post(f"{nginx.url}/upload", body=bytes(500_000))).status == 204
        refused = await client.post(f"{nginx.url}/upload", body=bytes(50_000_000))
        assert refused.status == 413


async def test_cpython_s_http_server(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(LARGE)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    for version in ("HTTP/1.0", "HTTP/1.1"):
        handler = type("Handler", (Quiet,), {"protocol_version": version})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=tmp_path)) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                async with HTTPClient() as client:
                    for _ in range(3):
                        got = await client.get(f"http://127.0.0.1:{server.server_port}/large.bin")
                        assert got.content == LARGE
                    assert client.pool.idle == (version == "HTTP/1.1")
                    assert (await client.get(f"http://127.0.0.1:{server.server_port}/none")).status == 404
            finally:
                await trio.to_thread.run_sync(server.shutdown)
                thread.join()


# Proxies


async def connect_proxy(stream: trio.abc.Stream) -> None:
    """A proxy that tunnels, and answers absolute URLs itself."""
    stream = Stream.of(stream)
    head = await stream.receive_until(b"\r\n\r\n", limit=10_000)
    method, target, _ = head.partition(b"\r\n")[0].split()
    if method != b"CONNECT":
        body = target + b" " + (b"auth" if b"\r\nproxy-authorization: Basic dTpw\r\n" in head else b"")
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        return
    if target.startswith(b"forbidden"):
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        return
    host, _, port = target.rpartition(b":")
    async with await trio.open_tcp_stream(host.decode(), int(port)) as there, trio.open_nursery() as nursery:

        async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
            async for data in source:
                await sink.send_all(data)
            nursery.cancel_scope.cancel()

        await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
        nursery.start_soon(copy, stream, there)
        nursery.start_soon(copy, there, stream)


async def test_https_goes_through_a_tunnel_and_http_as_an_absolute_url(nginx: Nginx, trusted: ssl.SSLContext) -> None:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, connect_proxy, "tcp://127.0.0.1:0")
        proxy = service.endpoints[0].replace("tcp://", "http://u:p@")
        async with HTTPClient(tls=trusted, proxy=proxy) as client:
            assert (await client.get(f"{nginx.tls_url}/page.html")).text() == "<p>hello</p>"
            assert (await client.get("http://example.org/x?y")).text() == "http://example.org/x?y auth"
            with pytest.raises(TunnelError, match="403"):
                await client.get("https://forbidden.example/")
            with pytest.raises(UpgradeRefused, match="200"):  # nginx has no such protocol, but was reached
                await client.open_upgrade(f"{nginx.url.replace('http', 'ws')}/page.html", "websocket")
            assert client.pool.connections == client.pool.idle
        nursery.cancel_scope.cancel()


async def socks_proxy(stream: trio.abc.Stream) -> None:
    """SOCKS5 (RFC 1928) without passwords, to names on this machine."""
    stream = Stream.of(stream)
    _, count = await stream.receive_exactly(2)
    await stream.receive_exactly(count)
    await stream.send_all(b"\x05\x00")
    *_, kind = await stream.receive_exactly(4)
    host = await stream.receive_exactly(4 if kind == 1 else (await stream.receive_exactly(1))[0])
    port = int.from_bytes(await stream.receive_exactly(2), "big")
    name = host.decode() if kind == 3 else "127.0.0.1"
    async with await trio.open_tcp_stream(name, port) as there, trio.open_nursery() as nursery:
        await stream.send_all(b"\x05\x00\x00\x01" + bytes(6))
        nursery.start_soon(_copy, stream, there)
        await _copy(there, stream)
        nursery.cancel_scope.cancel()


async def _copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except trio.BrokenResourceError:
        pass


async def test_both_kinds_of_page_come_through_socks(nginx: Nginx, trusted: ssl.SSLContext) -> None:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, socks_proxy, "tcp://127.0.0.1:0")
        async with HTTPClient(tls=trusted, proxy=service.endpoints[0].replace("tcp", "socks5")) as client:
            for url in (nginx.tls_url, nginx.url):
                for _ in range(2):
                    assert (await client.get(f"{url}/page.html")).text() == "<p>hello</p>"
            assert client.pool.connections == client.pool.idle == 2
        nursery.cancel_scope.cancel()


# httpx2 over our streams


async def application(request: Request) -> Response:
    body = hashlib.sha256()
    async for piece in request.body:
        body.update(piece)
    headers = {"set-cookie": "seen=1", "x-cookie": request.headers.get("cookie", "")}
    if request.path == "/moved":
        return Response.redirect("/", 302, headers)
    if request.path == "/login" and "authorization" not in request.headers:
        return Response.problem(401, {"www-authenticate": 'Basic realm="x"'})
    return Response.json({"method": request.method, "sha256": body.hexdigest()}, headers=headers)


async def test_httpx2_brings_cookies_redirects_authentication_and_multipart() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"hello"
        yield b"world"

    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, HTTPHandler(application), "tcp://127.0.0.1:0")
        base = service.endpoints[0].replace("tcp", "http")
        transport = AsyncnetTransport()
        async with httpx2.AsyncClient(transport=transport, base_url=base, follow_redirects=True) as client:
            response = await client.get("/moved")
            assert (response.status_code, len(response.history)) == (200, 1)
            assert response.headers["x-cookie"] == "seen=1"
            assert response.http_version == "HTTP/1.1"
            sha = hashlib.sha256(b"helloworld").hexdigest()
            for content in (b"helloworld", pieces()):
                assert (await client.post("/", content=content)).json() == {"method": "POST", "sha256": sha}
            assert (await client.post("/", files={"file": ("name", b"x" * 200_000)})).status_code == 200
            assert (await client.get("/login", auth=("user", "password"))).status_code == 200
            async with client.stream("GET", "/") as streamed:
                assert b"sha256" in b"".join([piece async for piece in streamed.aiter_bytes()])
            assert transport.client.pool.connections == transport.client.pool.idle == 1
        nursery.cancel_scope.cancel()


async def silent(stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def nonsense(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"SSH-2.0-x\r\n")


async def test_httpx2_s_own_exceptions_are_raised() -> None:
    (closed,) = free_ports(1)
    async with trio.open_nursery() as nursery:
        quiet = (await nursery.start(serve, silent, "tcp://127.0.0.1:0")).endpoints[0].replace("tcp", "http")
        other = (await nursery.start(serve, nonsense, "tcp://127.0.0.1:0")).endpoints[0].replace("tcp", "http")
        async with httpx2.AsyncClient(transport=AsyncnetTransport()) as client:
            with pytest.raises(httpx2.ConnectError):
                await client.get(f"http://127.0.0.1:{closed}/")
            with pytest.raises(httpx2.ReadTimeout):
                await client.get(quiet, timeout=httpx2.Timeout(5, read=0.05))
            with pytest.raises(httpx2.RemoteProtocolError):
                await client.get(other)
        nursery.cancel_scope.cancel()
