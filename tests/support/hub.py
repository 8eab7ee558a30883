"""A stand-in for the Hugging Face hub: its API and its files over HTTP, from memory."""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_LFS_BYTES = 2000  # files of at least so many bytes lie on another server, as large ones do
_PAGE = 1000

# Path -> content, of one revision of one repository.
Revision = dict[str, bytes]


@dataclass(frozen=True)
class Commit:
    """A commit.

    Attributes:
        sha: Its id.
        title, message: What its author says of it.
        files: All files of the repository behind it.
    """

    sha: str
    title: str
    message: str
    files: Revision


@dataclass
class Hub:
    """A running stand-in.

    Attributes:
        repositories: "datasets/owner/name" -> revision -> path -> content.
        requests: What was asked, in order: "GET /path", with the range where one was asked for.
        answers: Status codes that the next requests get in place of an answer.
        tokens: Where not empty, only requests with one of these tokens get an answer.
        heads_tell: Whether a HEAD request tells the same as the API.
        readers: Tokens that may read and not write.
        commits: "datasets/owner/name" -> branch -> commits, the newest last.
        uploads: SHA-256 -> large files that were sent.
        ignored: Paths that a .gitignore keeps out.
        meanwhile: Called once, before the next commit is made.
        lost_answers: So many commits are made, and their answer is lost.
    """

    repositories: dict[str, dict[str, Revision]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    heads_tell: bool = True
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, list[Commit]]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    meanwhile: Callable[[], object] | None = None
    lost_answers: int = 0

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.elsewhere = f"http://localhost:{port}"  # another host, as the hub's client sees it
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def put(self, name: str, files: Revision, revision: str = "main") -> None:
        """Makes a revision of a repository, in place of what it held."""
        self.repositories.setdefault(name, {})[revision] = files

    def commit(self, name: str, branch: str, files: Revision, title: str, message: str = "") -> str:
        """Makes a commit, and returns its id."""
        made = self.history(name, branch)
        sha = hashlib.sha1(f"{name} {branch} {len(made)} {title} {message}".encode()).hexdigest()
        made.append(Commit(sha, title, message, files))
        self.repositories.setdefault(name, {})[branch] = files
        self.repositories[name][sha] = files
        return sha

    def history(self, name: str, branch: str) -> list[Commit]:
        """The commits of a branch; one that `put` made begins with its files."""
        branches = self.commits.setdefault(name, {})
        if branch not in branches:
            files = self.repositories.get(name, {}).get(branch, {})
            branches[branch] = [Commit("0" * 40, "initial commit", "", files)]
            self.repositories.setdefault(name, {})["0" * 40] = files
        return branches[branch]

    def counted(self, method: str) -> int:
        """How many requests of a method were made."""
        return Counter(request.partition(" ")[0] for request in self.requests)[method]

    def forget(self) -> None:
        """Ends what one test has asked for."""
        self.repositories.clear()
        self.requests.clear()
        self.answers.clear()
        self.tokens.clear()
        self.heads_tell = True
        self.readers.clear()
        self.commits.clear()
        self.uploads.clear()
        self.ignored.clear()
        self.meanwhile = None
        self.lost_answers = 0

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


def _entry(path: str, content: bytes) -> dict[str, object]:
    """What the API tells of a file: git's id, and of a large file the SHA-256 beside it."""
    if len(content) < _LFS_BYTES:
        blob = hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()
        return {"type": "file", "oid": blob, "size": len(content), "path": path}
    digest = hashlib.sha256(content).hexdigest()
    return {
        "type": "file",
        "oid": hashlib.sha1(b"pointer to " + digest.encode()).hexdigest(),
        "size": len(content),
        "path": path,
        "lfs": {"oid": digest, "size": len(content), "pointerSize": 134},
    }


def _folders(files: Revision) -> dict[str, dict[str, object]]:
    parents = {path[: m.start()] for path in files for m in re.finditer("/", path)}
    return {path: {"type": "directory", "oid": "0" * 40, "path": path} for path in parents}


def _handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body leave together; apart, the body waits for an acknowledgement

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answered(self._get)

        def do_HEAD(self) -> None:
            self._answered(self._get)

        def do_POST(self) -> None:
            self._answered(self._post)

        def do_PUT(self) -> None:
            self._answered(self._put)

        def _answered(self, answer: Callable[[str], None]) -> None:
            parts = urlsplit(self.path)
            self.query = parse_qs(parts.query)
            self.body = self._read_body()
            asked = f"{self.command} {parts.path} {self.headers.get('Range', '')}".strip()
            hub.requests.append(asked)
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if hub.answers:
                self._send(hub.answers.pop(0))
            elif (
                hub.tokens
                and token not in hub.tokens
                and not parts.path.startswith(("/large/", "/upload/"))
            ):
                self._send(401, error="" if not token else "Invalid credentials")
            else:
                answer(parts.path)

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _put(self, path: str) -> None:
            digest = path.removeprefix("/upload/")
            assert hashlib.sha256(self.body).hexdigest() == digest
            hub.uploads[digest] = self.body
            self._send(200)

        def _post(self, path: str) -> None:
            repo = r"(datasets/[^/]+/[^/]+)"
            if path == "/api/validate-yaml":
                self._send_json({})
            elif found := re.fullmatch(rf"/api/{repo}/paths-info/([^/]+)", path):
                self._paths_info(found[1], unquote(found[2]))
            elif found := re.fullmatch(rf"/api/{repo}/preupload/([^/]+)", path):
                self._preupload(found[1], unquote(found[2]))
            elif found := re.fullmatch(rf"/{repo}\.git/info/lfs/objects/batch", path):
                self._lfs_batch()
            elif found := re.fullmatch(rf"/api/{repo}/branch/([^/]+)", path):
                branch = unquote(found[2])
                if branch in hub.repositories[found[1]]:
                    self._send(409)
                    return
                hub.repositories[found[1]][branch] = hub.repositories[found[1]]["main"]
                hub.commits[found[1]][branch] = list(hub.history(found[1], "main"))
                self._send(200)
            else:
                found = re.fullmatch(rf"/api/{repo}/commit/([^/]+)", path)
                assert found, f"the stand-in does not know {path}"
                self._commit(found[1], unquote(found[2]))

        def _paths_info(self, name: str, revision: str) -> None:
            files = self._files(name, revision)
            if files is not None:
                known = {p: _entry(p, content) for p, content in files.items()} | _folders(files)
                asked = parse_qs(self.body.decode())["paths"]
                self._send_json([known[p] for p in asked if p in known])

        def _preupload(self, name: str, revision: str) -> None:
            files = self._files(name, revision)
            if files is None:
                return
            answers = []
            for asked in json.loads(self.body)["files"]:
                path = asked["path"]
                entry = _entry(path, files[path]) if path in files else {}
                answer = {
                    "path": path,
                    "uploadMode": "lfs" if asked["size"] >= _LFS_BYTES else "regular",
                    "shouldIgnore": path in hub.ignored,
                    "oid": entry["lfs"]["oid"] if "lfs" in entry else entry.get("oid"),
                }
                answers.append(answer)
            self._send_json({"files": answers})

        def _lfs_batch(self) -> None:
            objects = json.loads(self.body)["objects"]
            for each in objects:
                if each["oid"] not in hub.uploads:
                    each["actions"] = {"upload": {"href": f"{hub.elsewhere}/upload/{each['oid']}"}}
            self._send_json({"transfer": "basic", "objects": objects})

        def _commit(self, name: str, branch: str) -> None:
            if self._is_reader():
                self._send(403, error="Forbidden: you must use a write token")
                return
            if hub.meanwhile is not None:
                meanwhile, hub.meanwhile = hub.meanwhile, None
                meanwhile()
            header, *lines = [json.loads(line) for line in self.body.splitlines()]
            head = hub.history(name, branch)[-1]
            if header["value"].get("parentCommit", head.sha) != head.sha:
                self._send(412, error="A commit has happened since. Please refresh and try again.")
                return
            files = dict(head.files)
            for line in lines:
                path = line["value"]["path"]
                if line["key"] == "deletedFile":
                    del files[path]
                elif line["key"] == "lfsFile":
                    files[path] = hub.uploads[line["value"]["oid"]]
                else:
                    files[path] = base64.b64decode(line["value"]["content"])
            said = header["value"]
            sha = hub.commit(name, branch, files, said["summary"], said["description"])
            if hub.lost_answers:
                hub.lost_answers -= 1
                self._send(504)
            else:
                self._send_json(
                    {"commitUrl": f"{hub.endpoint}/{name}/commit/{sha}", "commitOid": sha}
                )

        def _is_reader(self) -> bool:
            return self.headers.get("Authorization", "").removeprefix("Bearer ") in hub.readers

        def _commits(self, name: str, branch: str) -> None:
            if self._files(name, branch) is None:
                return
            made = [
                {
                    "id": commit.sha,
                    "authors": [],
                    "date": "2026-01-01T00:00:00.000Z",
                    "title": commit.title,
                    "message": commit.message,
                }
                for commit in reversed(hub.history(name, branch))
            ]
            self._send_json(made)

        def _get(self, path: str) -> None:
            if path.startswith("/large/"):
                content = next(
                    content
                    for revisions in hub.repositories.values()
                    for files in revisions.values()
                    for content in files.values()
                    if hashlib.sha256(content).hexdigest() == path.removeprefix("/large/")
                )
                self._send_content(content, {})
            elif found := re.fullmatch(r"/(datasets/[^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
                self._resolve(found[1], unquote(found[2]), unquote(found[3]))
            elif found := re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
                self._tree(found[1], unquote(found[2]), unquote(found[3] or ""))
            elif found := re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)/auth-check/write", path):
                self._send(403 if self._is_reader() else 200)
            elif found := re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)/commits/([^/]+)", path):
                self._commits(found[1], unquote(found[2]))
            elif found := re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)(?:/revision/(.*))?", path):
                name, revision = found[1], unquote(found[2] or "main")
                if self._files(name, revision) is not None:
                    self._send_json({"id": name.removeprefix("datasets/"), "sha": "0" * 40})
            else:
                self._send(404, code="RepoNotFound")

        def _files(self, name: str, revision: str) -> Revision | None:
            """The files of a revision; answers, where there is none."""
            if name not in hub.repositories:
                self._send(404, code="RepoNotFound")
            elif revision not in hub.repositories[name]:
                self._send(404, code="RevisionNotFound")
            else:
                return hub.repositories[name][revision]
            return None

        def _tree(self, name: str, revision: str, below: str) -> None:
            files = self._files(name, revision)
            if files is None:
                return
            everything = _folders(files) | {p: _entry(p, files[p]) for p in files}
            prefix = f"{below}/" if below else ""
            paths = sorted(p for p in everything if p.startswith(prefix))
            if self.query.get("recursive") not in (["true"], ["True"]):
                paths = [p for p in paths if "/" not in p[len(prefix) :]]
            if not paths:
                self._send(404, code="EntryNotFound")
                return
            start = int(self.query.get("cursor", ["0"])[0])
            link = {}
            if start + _PAGE < len(paths):
                path = urlsplit(self.path).path
                query = f"recursive={self.query['recursive'][0]}&cursor={start + _PAGE}"
                link = {"Link": f'<{hub.endpoint}{path}?{query}>; rel="next"'}
            self._send_json([everything[p] for p in paths[start : start + _PAGE]], link)

        def _resolve(self, name: str, revision: str, path: str) -> None:
            files = self._files(name, revision)
            if files is None:
                return
            if path not in files:
                self._send(404, code="EntryNotFound")
                return
            entry, content = _entry(path, files[path]), files[path]
            if "lfs" not in entry:
                etag = entry["oid"] if hub.heads_tell else "of-a-proxy"
                self._send_content(content, {"ETag": f'"{etag}"'})
                return
            digest = hashlib.sha256(content).hexdigest()
            headers = {
                "Location": f"{hub.elsewhere}/large/{digest}",
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{digest if hub.heads_tell else "of-a-proxy"}"',
            }
            self._send(302, headers=headers)

        def _send_content(self, content: bytes, headers: dict[str, str]) -> None:
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
                self._send(206, content[start : end + 1], headers)
            else:
                self._send(200, content, headers)

        def _send_json(self, answer: object, headers: dict[str, str] | None = None) -> None:
            headers = {"Content-Type": "application/json", **(headers or {})}
            self._send(200, json.dumps(answer).encode(), headers)

        def _send(
            self,
            status: int,
            body: bytes = b"",
            headers: dict[str, str] | None = None,
            code: str = "",
            error: str = "",
        ) -> None:
            self.send_response(status)
            named = {"X-Error-Code": code, "X-Error-Message": error}
            for key, value in {**named, **(headers or {})}.items():
                if value:
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler
