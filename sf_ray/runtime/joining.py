"""Whether this process can join the Ray cluster at an address, asked before Ray is.

`ray.init` waits for minutes for whatever does not answer as a cluster does, tries a wrong token
twenty times, and says neither. Here every question has a limit, and every error its cause. Starts
nothing and joins nothing.
"""

import os
import socket
from typing import Any

from ray._common.usage.usage_lib import get_cluster_metadata
from ray._private import services
from ray._private.authentication import authentication_token_setup as token_setup
from ray._private.utils import check_version_info, compute_version_info
from ray.exceptions import AuthenticationError, RpcError

from sf_ray.errors import SfRayError, first_line

_CONNECT_S = 5.0
# A cluster under load is slow; what never says a word is none.
_FIRST_BYTES_S = 15.0
# As long as the client itself waits for the cluster's control service.
_ANSWER_S = 30.0
# The node that `ray start` has just started here may not be listed yet.
_LISTED_S = 15
# What a client of HTTP/2 begins with, which gRPC runs on: the preface and a frame of no settings.
# A server answers with a frame of its own settings: three bytes of length, then its type.
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_HTTP2_FRAME, _HTTP2_SETTINGS = 9, 4
_INSTEAD = "give HOST:PORT as `ray start` printed it (the port is 6379 unless it was changed)"


_TOKEN = (
    "have the token of the cluster in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, "
    "or in ~/.ray/auth_token (on the head, `ray get-auth-token` prints it)"
)


class NoClusterError(SfRayError):
    """No Ray cluster is at an address: nothing listens there, or something else does."""


def find_address(address: str | None) -> tuple[str | None, str]:
    """Finds the cluster to join, as Ray does.

    Args:
        address: See `--ray-address`.

    Returns:
        The address, or None where a local Ray is to be started; and what named the address.

    Raises:
        NoClusterError: "auto", and no cluster runs on this machine.
    """
    from_environment = os.environ.get("RAY_ADDRESS")
    if address not in (None, "auto"):
        source = "--ray-address"
    else:
        source = "RAY_ADDRESS" if from_environment else "the cluster last started on this machine,"
        try:
            address = services.get_ray_address_from_environment(address, None)
        except ConnectionError:
            raise NoClusterError(
                "--ray-address auto: no Ray cluster runs on this machine; start one with `ray "
                "start --head`, or give --ray-address local"
            ) from None
    return (None if address in (None, "local") else address), source


def check_cluster(address: str, source: str) -> None:
    """Refuses an address at which no cluster is that this process can join.

    Args:
        address: "host:port".
        source: What named the address, for errors.

    Raises:
        SfRayError: Says what is there instead, or what differs.
    """
    where = f"{source} {address}"
    host, port = _parse(address, where)
    check_token_file()
    try:
        token_setup.ensure_token_if_auth_enabled(create_token_if_missing=False)
    except AuthenticationError:
        raise SfRayError(f"{where}: RAY_AUTH_MODE is token, and there is none: {_TOKEN}") from None
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):  # as Ray reads it
        _check_speaks_grpc(host, port, where)
    client = _connect(services.canonicalize_bootstrap_address(address), where)
    _check_versions(client, where)
    _check_machine(client, where)


def check_token_file() -> None:
    """Refuses a token file that Ray cannot read; Ray would end the process by SIGABRT.

    Raises:
        SfRayError: Names the file.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not path or os.environ.get("RAY_AUTH_TOKEN") or _auth_mode() == "disabled":
        return
    try:
        with open(path, encoding="utf-8") as file:
            if file.read().strip():
                return
        problem = "it is empty"
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is no text"
    raise SfRayError(
        f"RAY_AUTH_TOKEN_PATH {path}: no token can be read there ({problem}); have the token of "
        "the cluster there, or give it in RAY_AUTH_TOKEN"
    )


def _auth_mode() -> str:
    return os.environ.get("RAY_AUTH_MODE", "").lower()


def _parse(address: str, where: str) -> tuple[str, int]:
    """Host and port of an address.

    Raises:
        NoClusterError: It is of another kind, or none.
    """
    scheme, separator, _ = address.partition("://")
    if scheme == "ray":
        raise NoClusterError(
            f"{where}: sf-ray does not run through Ray Client (ray://): run it on a node of the "
            "cluster, or hand it in with `ray job submit --address http://HEAD:8265 -- sf-ray ...`"
        )
    if separator:
        raise NoClusterError(
            f"{where}: that is an address of a web server, such as Ray's dashboard, to which "
            f"`ray job submit --address` sends jobs; to join the cluster, {_INSTEAD}"
        )
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise NoClusterError(f"{where}: that is no address of a Ray cluster; {_INSTEAD}")
    return host, int(port)


def _check_speaks_grpc(host: str, port: int, where: str) -> None:
    """Refuses an address where nothing listens, or something that does not speak HTTP/2."""
    try:
        answer = _first_bytes(host, port)
    except (socket.gaierror, UnicodeError) as error:
        problem = f"this machine finds no host {host!r} ({first_line(error)}); mend the name"
        raise NoClusterError(f"{where}: {problem}, or give an IP address") from None
    except TimeoutError:
        raise NoClusterError(
            f"{where}: no answer within seconds: the host is down, or a firewall drops what is "
            f"sent there; {_INSTEAD}"
        ) from None
    except OSError as error:
        raise NoClusterError(
            f"{where}: nothing can be reached there ({error.strerror or first_line(error)}): the "
            f"cluster is gone, or it has another address; {_INSTEAD}, start a cluster with `ray "
            "start --head`, or give --ray-address local"
        ) from None
    if answer is None:  # it may be a cluster, so no other one is taken in its place
        raise SfRayError(
            f"{where}: what listens there says nothing within {_FIRST_BYTES_S:.0f} s: it hangs, or "
            f"is no Ray cluster; look at `ray status` on the head, or {_INSTEAD}"
        )
    if len(answer) == _HTTP2_FRAME and answer[3] == _HTTP2_SETTINGS:
        return
    if answer.startswith((b"HTTP/", b"<")):
        raise NoClusterError(
            f"{where}: a web server answers there, such as Ray's dashboard, and no Ray cluster; "
            f"{_INSTEAD}"
        )
    said = f"answers {answer!r}" if answer else "closes the connection"
    raise NoClusterError(
        f"{where}: what listens there {said}, so it is no Ray cluster, or one with TLS (then set "
        f"RAY_USE_TLS=1 and its files); {_INSTEAD}"
    )


def _first_bytes(host: str, port: int) -> bytes | None:
    """What a server answers to a client of HTTP/2: b"" where it hangs up, None where it waits.

    Raises:
        OSError: Nothing listens there.
    """
    # For localhost Ray takes another address of this machine, at which a dashboard does not listen.
    # What does listen at localhost explains more than that nothing is where Ray would look.
    for name in (services.resolve_ip_for_localhost(host), host):
        try:
            connection = socket.create_connection((name, port), timeout=_CONNECT_S)
        except ConnectionRefusedError:
            if name == host:
                raise
            continue
        with connection:
            connection.settimeout(_FIRST_BYTES_S)
            try:
                connection.sendall(_HTTP2_HELLO)
                return connection.recv(_HTTP2_FRAME, socket.MSG_WAITALL)
            except TimeoutError:
                return None
            except OSError:  # reset
                return b""
    raise AssertionError("the loop returns or raises")


def _connect(address: str, where: str) -> Any:
    """A client of the cluster's control service.

    Raises:
        SfRayError: The token is missing or wrong, or it is another service.
    """
    try:
        client = services.GcsClient(address=address)
        client.internal_kv_get(b"sf_ray", None, timeout=_ANSWER_S)
    except AuthenticationError:
        has_token = _auth_mode() == "token"
        problem = (
            "the cluster refuses the token of this process"
            if has_token
            else "the cluster wants a token, and this process sends none: set RAY_AUTH_MODE=token"
        )
        raise SfRayError(f"{where}: {problem}; {_TOKEN}") from None
    except RpcError as error:
        raise NoClusterError(
            f"{where}: no control service of a Ray cluster answers there ({first_line(error)}), "
            f"perhaps another port of a node; {_INSTEAD}"
        ) from None
    return client


def _check_versions(client: Any, where: str) -> None:
    """Refuses a cluster of other versions of Ray or Python than Ray lets join."""
    of_cluster = get_cluster_metadata(client)
    try:
        check_version_info(of_cluster, "this machine")
    except RuntimeError:
        ray_version, python_version = compute_version_info()
        raise SfRayError(
            f"{where}: the cluster runs Ray {of_cluster['ray_version']} on Python "
            f"{of_cluster['python_version']}, and this process Ray {ray_version} on Python "
            f"{python_version}; they must be the same: use the environment of the cluster's nodes, "
            "or start the cluster from this one"
        ) from None


def _check_machine(client: Any, where: str) -> None:
    """Refuses a cluster that this machine is no node of: Ray has no other way in but ray://."""
    try:
        services.get_node_to_connect_for_driver(client, timeout_seconds=_LISTED_S)
    except RuntimeError:
        raise SfRayError(
            f"{where}: the cluster answers, but no node of it runs on this machine, where a job "
            "has to be: run sf-ray on a node, hand it in with `ray job submit`, or make this "
            f"machine a node with `ray start --address {where.rpartition(' ')[2]}`"
        ) from None


def use_token_of_this_machine() -> None:
    """Sends the token of this machine, if it has one, to a cluster that was found here.

    Ray does so itself when it joins such a cluster; `check_cluster` asks earlier.
    """
    token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
