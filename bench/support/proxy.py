"""A TCP proxy between an S3 client and its server that breaks requests, as networks and stores do.

Of HTTP it knows only where the head of a request ends. It closes each connection after one request.
"""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

# The status and the text of an answer.
_SLOW_DOWN = (
    b"503 Slow Down",
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.'
    b"</Message></Error>",
)
_DENIED = (
    b"403 Forbidden",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message>'
    b"</Error>",
)
# What the proxy may do to a request instead of passing it on:
#   reset   resets the connection before the server sees the request
#   busy    answers 503 SlowDown
#   half    breaks off in the middle of the server's answer
#   lost    lets the server do the request, and drops the answer
#   slow    waits half a second first
#   hang    does nothing for a minute, longer than the client waits; not among FAULTS
FAULTS = ("reset", "busy", "half", "lost", "slow")


class Proxy:
    """Listens on a free port from its creation until `close`.

    Attributes:
        endpoint: URL of the proxy, for the client.
        faults: Fault -> share of the requests that it breaks; may be changed at any time.
        requests: (method, path without query) -> number of requests.
        broken: Fault -> number of requests that it broke.
        denies: (method, path, query, headers in lower case) -> whether the proxy answers 403, as a
            policy does.
        puts: Path -> when the server first answered a put of it with 200, by `time.time_ns()`.
    """

    def __init__(
        self, upstream: str, faults: Mapping[str, float] | None = None, seed: int = 0
    ) -> None:
        url = urlsplit(upstream)
        self._upstream = (url.hostname or "", url.port or 80)
        self._random = random.Random(seed)
        self.faults: dict[str, float] = dict(faults or {})
        self.denies: Callable[[str, str, str, str], bool] = lambda *_: False
        self.requests: Counter[tuple[str, str]] = Counter()
        self.broken: Counter[str] = Counter()
        self.puts: dict[str, int] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accepts no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                self._one_request(client)
        except OSError:
            return

    def _one_request(self, client: socket.socket) -> None:
        client.settimeout(60)
        received = b""
        while b"\r\n\r\n" not in received:
            data = client.recv(1 << 16)
            if not data:
                return
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        method, target = head.split(b" ", 2)[:2]
        path, _, query = target.decode().partition("?")
        self.requests[method.decode(), path] += 1
        if self.denies(method.decode(), path, query, head.decode("latin-1").lower()):
            _answer(client, head, body, _DENIED)
            return
        fault = self._draw_fault()
        if fault:
            self.broken[fault] += 1
        if fault == "reset":
            _reset(client)
            return
        if fault == "hang":
            time.sleep(60)
            return
        if fault == "slow":
            time.sleep(0.5)
        if fault == "busy":
            _answer(client, head, body, _SLOW_DOWN)
            return
        with socket.create_connection(self._upstream, timeout=60) as server:
            server.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            up = threading.Thread(target=_pipe, args=(client, server), daemon=True)
            up.start()
            if method == b"PUT":
                self._watch_put(server, client, path, fault)
            elif fault == "lost":
                while data := server.recv(1 << 16):
                    # Without "100 Continue" the client would not send its body.
                    if data.startswith(b"HTTP/1.1 100"):
                        client.sendall(data)
                _reset(client)
            elif fault == "half":
                answer = server.recv(1 << 16)
                client.sendall(answer[: len(answer) // 2])
                _reset(client)
            else:
                _pipe(server, client)
                client.shutdown(socket.SHUT_RDWR)

    def _watch_put(
        self, server: socket.socket, client: socket.socket, path: str, fault: str | None
    ) -> None:
        """Passes the server's answer on, unless a fault drops it, and notes when it came."""
        answered = b""
        while data := server.recv(1 << 16):
            answered += data
            if b"HTTP/1.1 200" in answered:
                self.puts.setdefault(path, time.time_ns())
            # "100 Continue" is always passed on: without it the client would not send its body.
            if fault is None or fault == "slow" or data.startswith(b"HTTP/1.1 100"):
                client.sendall(data)
        if fault is None or fault == "slow":
            client.shutdown(socket.SHUT_RDWR)
        else:
            _reset(client)

    def _draw_fault(self) -> str | None:
        draw = self._random.random()
        for fault, share in self.faults.items():
            draw -= share
            if draw < 0:
                return fault
        return None


def _answer(client: socket.socket, head: bytes, body: bytes, answer: tuple[bytes, bytes]) -> None:
    """Answers a request with a status and the text of an error."""
    # Reads the whole body first: closing a socket with unread data resets the connection, and the
    # client would see that instead of the answer.
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ),
        0,
    )
    if b"100-continue" in head.lower():
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < length:
        body += client.recv(1 << 16)
    status, text = answer
    client.sendall(
        b"HTTP/1.1 %b\r\nContent-Type: application/xml\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n"
        % (status, len(text))
        + (b"" if head.startswith(b"HEAD") else text)
    )


def _pipe(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        return


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.shutdown(socket.SHUT_RD)  # wakes the thread that still reads from it
    client.close()
