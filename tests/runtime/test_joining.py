"""Addresses at which no cluster is that can be joined; sockets and Ray's own client are real."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray._private import services
from ray._private.authentication import authentication_token_setup as token_setup
from ray.exceptions import AuthenticationError, RpcError

from sf_ray.errors import SfRayError
from sf_ray.runtime import joining
from sf_ray.runtime.joining import NoClusterError, check_cluster

# What a server of HTTP/2 begins with: an empty frame of settings.
_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

Serve = Callable[[bytes | None], str]


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(joining, "_FIRST_BYTES_S", 1.0)
    # Another address of this machine, where the test's servers do not listen.
    monkeypatch.setattr(services, "resolve_ip_for_localhost", lambda host: host)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers with some bytes, hangs up (b""), or says nothing (None)."""
    servers: list[socket.socket] = []
    held: list[socket.socket] = []

    def start(answer: bytes | None) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def take() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                if answer is None:
                    held.append(connection)
                    continue
                connection.recv(1024)
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=take, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for open_socket in servers + held:
        open_socket.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:10001", "does not run through Ray Client"),
        ("http://head:8265", "address of a web server, such as Ray's dashboard"),
        ("https://head", "address of a web server"),
        ("head", "no address of a Ray cluster; give HOST:PORT"),
        ("", "no address of a Ray cluster"),
        (":6379", "no address of a Ray cluster"),
        ("head:http", "no address of a Ray cluster"),
        ("head:0", "no address of a Ray cluster"),
        ("head:70000", "no address of a Ray cluster"),
        ("no-such-host.invalid:6379", "finds no host 'no-such-host.invalid'"),
        ("a..b:6379", "finds no host 'a..b'"),
    ],
)
def test_what_is_no_address_of_a_cluster_is_said(address: str, words: str) -> None:
    with pytest.raises(NoClusterError) as raised:
        check_cluster(address, "--ray-address")
    assert str(raised.value).startswith(f"--ray-address {address}: ")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server answers there"),
        (b"<!DOCTYPE HTML><html>", "a web server answers there"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "answers b'SSH-2.0-O', so it is no Ray cluster"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "one with TLS"),
        (b"", "closes the connection"),
    ],
)
def test_what_listens_there_and_is_no_cluster_is_said(
    serve: Serve, answer: bytes, words: str
) -> None:
    with pytest.raises(NoClusterError, match=words):
        check_cluster(serve(answer), "RAY_ADDRESS")


def test_what_says_nothing_may_be_a_cluster_and_is_not_taken_for_gone(serve: Serve) -> None:
    with pytest.raises(SfRayError, match="says nothing within 1 s: it hangs, or") as raised:
        check_cluster(serve(None), "--ray-address")
    assert not isinstance(raised.value, NoClusterError)


def test_an_address_where_nothing_listens_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NoClusterError, match="nothing can be reached there .Connection refused"):
        check_cluster(f"127.0.0.1:{port}", "--ray-address")


def test_a_dashboard_that_listens_at_localhost_only_is_found(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    monkeypatch.setattr(services, "resolve_ip_for_localhost", lambda _: "127.0.0.2")
    with pytest.raises(NoClusterError, match="such as Ray's dashboard"):
        check_cluster(address, "--ray-address")


class FakeClient:
    """Stands for the client of a cluster's control service."""

    def __init__(self, error: Exception | None, versions: dict[str, str] | None) -> None:
        self.error, self.versions = error, versions

    def __call__(self, address: str) -> "FakeClient":
        return self

    def internal_kv_get(self, key: bytes, namespace: Any = None, timeout: Any = None) -> bytes:
        if self.error:
            raise self.error
        return json.dumps(self.versions).encode()


@pytest.fixture
def cluster_that(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> Callable[..., str]:
    """The address of a cluster whose control service answers as told."""

    def start(error: Exception | None = None, node_here: bool = True, **versions: str) -> str:
        python = services.ray._private.utils.compute_version_info()[1]
        of_cluster = {"ray_version": ray.__version__, "python_version": python} | versions
        monkeypatch.setattr(services, "GcsClient", FakeClient(error, of_cluster))

        def find_node(client: Any, timeout_seconds: float) -> object:
            if node_here:
                return object()
            raise RuntimeError("No node info found")

        monkeypatch.setattr(services, "get_node_to_connect_for_driver", find_node)
        return serve(_SETTINGS)

    return start


def test_a_cluster_that_can_be_joined_passes(cluster_that: Callable[..., str]) -> None:
    check_cluster(cluster_that(), "--ray-address")


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"ray_version": "2.9.3"}, "the cluster runs Ray 2.9.3 on Python .*, and this process Ray"),
        ({"python_version": "3.9.1"}, "on Python 3.9.1, and this process Ray"),
    ],
)
def test_other_versions_on_the_cluster_are_named(
    cluster_that: Callable[..., str], versions: dict[str, str], words: str
) -> None:
    with pytest.raises(SfRayError, match=words):
        check_cluster(cluster_that(**versions), "--ray-address")


def test_a_machine_that_is_no_node_of_the_cluster_is_said(cluster_that: Callable[..., str]) -> None:
    address = cluster_that(node_here=False)
    with pytest.raises(SfRayError, match=f"no node of it runs on this machine.*start .*{address}"):
        check_cluster(address, "--ray-address")


def test_another_port_of_a_node_is_said(cluster_that: Callable[..., str]) -> None:
    address = cluster_that(RpcError("Method not found!"))
    with pytest.raises(NoClusterError, match="Method not found.*perhaps another port of a node"):
        check_cluster(address, "--ray-address")


def test_a_token_that_is_not_sent_is_told_from_a_wrong_one(
    cluster_that: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = cluster_that(AuthenticationError("InvalidAuthToken"))
    with pytest.raises(SfRayError, match="this process sends none: set RAY_AUTH_MODE=token"):
        check_cluster(address, "--ray-address")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(SfRayError, match="refuses the token of this process; have the token of"):
        check_cluster(address, "--ray-address")


def test_token_mode_without_a_token_is_said(
    cluster_that: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**arguments: Any) -> None:
        raise AuthenticationError("no token was found")

    monkeypatch.setattr(token_setup, "ensure_token_if_auth_enabled", refuse)
    with pytest.raises(SfRayError, match="RAY_AUTH_MODE is token, and there is none"):
        check_cluster(cluster_that(), "--ray-address")


def test_a_token_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/no/such/file")
    with pytest.raises(SfRayError, match="RAY_AUTH_TOKEN_PATH /no/such/file: .*No such file"):
        check_cluster("127.0.0.1:6379", "--ray-address")
