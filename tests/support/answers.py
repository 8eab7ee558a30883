"""A web server that gives one answer to every request for a bucket, as a store would word it."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """What is answered.

    Attributes:
        status: HTTP status.
        body: Content.
        headers: Headers besides the length.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def amazon(status: int, code: str, message: str = "because", **headers: str) -> Answer:
    """An error as Amazon S3 and stores like it give it."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml", **headers})


def google(status: int, reason: str, message: str = "because") -> Answer:
    """An error as Google Cloud Storage gives it."""
    error = {"code": status, "message": message, "errors": [{"reason": reason}]}
    body = json.dumps({"error": error}).encode()
    return Answer(status, body, {"Content-Type": "application/json"})


class Answers:
    """Listens from its creation until `close`.

    Attributes:
        endpoint: Its URL.
        answers: Answers to the next requests; the last one is given for ever.
        requests: How many requests came.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while length := int(self.rfile.readline(), 16):
                        self.rfile.read(length + 2)
                    self.rfile.readline()
                outer.requests += 1
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                self.send_response(answer.status)
                body = b"" if self.command == "HEAD" else answer.body
                for name, value in {**answer.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()
