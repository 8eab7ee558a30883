"""Each failure is caused where that costs little; else it is built as its library builds it."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
import pytest
import s3fs
from aiohttp import ClientPayloadError
from aiohttp.http_exceptions import ContentLengthError

from sf_ray.errors import SfRayError
from sf_ray.storage.failures import disk_failure, failed_to_write, is_missing, judge
from sf_ray.storage.files import put_bytes, read_bytes, read_bytes_or_none
from sf_ray.storage.lease.files import exclusive_put
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location, storage_errors
from tests.support.answers import Answer, Answers, amazon


@pytest.fixture(scope="module")
def server() -> Iterator[Answers]:
    made = Answers()
    yield made
    made.close()


@pytest.fixture
def store(server: Answers) -> Answers:
    """A store of which a test says what it answers."""
    server.requests = 0
    return server


def at(store: Answers, retry_s: float = 60, **options: Any) -> Location:
    # botocore's own tries would only take time; the store's answer is what is tested.
    tried_once: dict[str, Any] = {"retries": {"total_max_attempts": 1}}
    known = {"key": "a", "secret": "b"} | options
    return Location(
        "s3://bucket/place",
        {"endpoint_url": store.endpoint, "config_kwargs": tried_once, **known},
        retry_s,
    )


LASTING = [
    (
        amazon(301, "PermanentRedirect", **{"x-amz-bucket-region": "r"}),
        "another region .*AWS_REGION",
    ),
    (amazon(400, "AuthorizationHeaderMalformed"), "another region .*AWS_REGION"),
    (amazon(403, "InvalidAccessKeyId"), "credentials are missing or wrong .*AWS_ACCESS_KEY_ID"),
    (amazon(403, "SignatureDoesNotMatch"), "credentials are missing or wrong"),
    (amazon(400, "InvalidToken"), "credentials are missing or wrong"),
    (amazon(400, "ExpiredToken"), "credentials have expired .*renew those"),
    (amazon(403, "RequestTimeTooSkewed"), "clock is wrong .*NTP"),
    (amazon(404, "NoSuchBucket"), "not found .*check the name, and that the bucket exists"),
    (amazon(403, "AccessDenied", "not authorized: kms:GenerateDataKey"), "key that encrypts"),
    (amazon(400, "KMS.DisabledException"), "key that encrypts .*enable it"),
    (amazon(403, "InvalidObjectState"), "archived .*restore it"),
    (amazon(403, "QuotaExceeded"), "quota is used up"),
    (amazon(507, "XMinioStorageFull"), "no space is left .*in that store"),
    (amazon(400, "KeyTooLongError"), "the store refuses the request"),
    (Answer(403, b"<html>blocked</html>"), "access denied"),
    (Answer(407, b"<html>who are you?</html>"), "proxy before the store refuses .*HTTPS_PROXY"),
    (amazon(418, "NewCode2031"), "the store refuses the request .*NewCode2031"),
]


@pytest.mark.s3
@pytest.mark.parametrize(("answer", "words"), LASTING)
def test_what_cannot_pass_is_said_at_once(store: Answers, answer: Answer, words: str) -> None:
    store.answers = [answer]
    puts = (lambda place: put_bytes(place, b"x"), lambda place: exclusive_put(place, b"x"))
    for ask in (*puts, read_bytes, list_files):
        before = store.requests
        with pytest.raises(SfRayError, match=f"^s3://bucket/place: .*{words}") as error:
            ask(at(store))
        assert "the endpoint, the network" not in str(error.value)
        assert store.requests - before <= 2  # s3fs asks twice where the region is in question


@pytest.mark.s3
@pytest.mark.parametrize(
    "answer",
    [
        amazon(503, "SlowDown"),
        amazon(500, "InternalError"),
        amazon(503, "NewCode2031"),
        amazon(429, "TooManyRequests"),
        amazon(400, "RequestTimeout"),
        Answer(502, b"<html>bad gateway</html>"),
    ],
)
def test_what_may_pass_is_tried_again_and_said_in_the_end(store: Answers, answer: Answer) -> None:
    store.answers = [answer, answer, Answer(200)]
    put_bytes(at(store), b"x")
    assert store.requests == 3
    store.answers = [answer]
    with pytest.raises(SfRayError, match="storage failed for 0.5 s .*the same command goes on"):
        put_bytes(at(store, retry_s=0.5), b"x")


@pytest.mark.s3
def test_a_token_that_is_renewed_in_its_file_is_read_again(
    store: Answers, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = b\naws_session_token = c\n"
    (tmp_path / "credentials").write_text(text.format("old"))
    place = at(store, key=None, secret=None)
    store.answers = [amazon(400, "ExpiredToken"), amazon(400, "ExpiredToken"), Answer(200)]
    first = place.fs
    put_bytes(place, b"x")
    assert store.requests == 3
    assert place.fs is not first


def client_error(
    status: int, code: str, message: str = "because"
) -> botocore.exceptions.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return botocore.exceptions.ClientError(response, "PutObject")


def like(
    module: str,
    name: str,
    base: type[BaseException] = Exception,
    text: str = "because",
    **fields: Any,
) -> Any:
    """An exception as a library has it that need not be installed."""
    made = type(name, (base,), {"__module__": module})(text)
    vars(made).update(fields)
    return made


def azure(status: int, code: str, text: str = "because") -> Any:
    fields = {"status_code": status, "error_code": code}
    return like("azure.core.exceptions", "HttpResponseError", text=text, **fields)


def refused_sign_in(text: str) -> Any:
    return like("google.auth.exceptions", "RefreshError", text=text)


def gcsfs(status: int, reason: str) -> Any:
    answer = {"code": status, "message": "because", "errors": [{"reason": reason}]}
    return like("gcsfs.retry", "HttpError", code=status, _error_response=answer)


def no_connection(error: OSError) -> OSError:
    key: Any = like("aiohttp.client_reqrep", "ConnectionKey", host="h", port=1, ssl=True)
    return aiohttp.ClientConnectorError(key, error)


def unknown_host(number: int) -> OSError:
    return no_connection(socket.gaierror(number, "Name not known"))


def client_failed(error: Exception) -> botocore.exceptions.HTTPClientError:
    return botocore.exceptions.HTTPClientError(error=error)


def of_proxy(status: int) -> Any:
    made = like("aiohttp.client_exceptions", "ClientHttpProxyError", status=status)
    return client_failed(made)


@pytest.mark.parametrize(
    ("error", "kind", "may_pass"),
    [
        (azure(403, "AuthenticationFailed"), "credentials", False),
        (azure(403, "AuthorizationPermissionMismatch"), "denied", False),
        (azure(404, "ContainerNotFound"), "not found", False),
        (azure(409, "BlobImmutableDueToPolicy"), "read-only", False),
        (azure(409, "ContainerBeingDeleted"), "busy", True),
        (azure(503, "ServerBusy"), "throttled", True),
        (azure(400, "InvalidResourceName"), "bad request", False),
        (like("azure.core.exceptions", "ClientAuthenticationError"), "credentials", False),
        (like("azure.core.exceptions", "ServiceRequestError"), "unreachable", True),
        (gcsfs(400, "invalid"), "bad request", False),
        (gcsfs(400, "userProjectMissing"), "denied", False),
        (gcsfs(401, "required"), "credentials", False),
        (gcsfs(401, "authError"), "expired", True),
        (gcsfs(404, "notFound"), "not found", False),
        (gcsfs(429, "rateLimitExceeded"), "throttled", True),
        (gcsfs(500, "backendError"), "server", True),
        (gcsfs(503, "anything"), "server", True),
        (OSError("Forbidden: b/bucket/o\nno access"), "denied", False),
        (ValueError("Bad Request: b/bucket/o\ninvalid name"), "bad request", False),
        (like("gcsfs.retry", "ChecksumError"), "unreachable", True),
        (like("google.auth.exceptions", "DefaultCredentialsError"), "credentials", False),
        (like("google.auth.exceptions", "RefreshError"), "expired", True),
        (like("google.auth.exceptions", "TransportError"), "unreachable", True),
        (like("requests.exceptions", "ConnectionError", OSError), "unreachable", True),
        (botocore.exceptions.NoCredentialsError(), "credentials", False),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="u"), "unreachable", True),
        (aiohttp.ClientPayloadError(), "unreachable", True),
        (aiohttp.ServerDisconnectedError(), "unreachable", True),
        (unknown_host(socket.EAI_NONAME), "host", True),
        (unknown_host(socket.EAI_AGAIN), "unreachable", True),
        (ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED"), "certificate", False),
        (ssl.SSLError(1, "EOF occurred in violation of protocol"), "unreachable", True),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "tls", True),
        (ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] required"), "tls", True),
        (ssl.SSLError(1, "[SSL: SSLV3_ALERT_BAD_RECORD_MAC] damaged"), "unreachable", True),
        (client_failed(ssl.SSLError(1, "[X509: NO_CERTIFICATE_OR_CRL_FOUND] none")), "tls", True),
        # What a client wraps as if there were no connection, and what no network can mend.
        (client_failed(FileNotFoundError(errno.ENOENT, "No such file")), "own file", False),
        (client_failed(like("aiohttp", "TooManyRedirects", status=0)), "region", False),
        (no_connection(OSError(errno.EMFILE, "Too many open files")), "limit", False),
        (no_connection(OSError(errno.ECONNREFUSED, "refused")), "unreachable", True),
        (of_proxy(403), "proxy", False),
        (of_proxy(503), "server", True),
        (RecursionError("maximum recursion depth exceeded"), "region", False),
        (RuntimeError("can't start new thread"), "limit", False),
        # One code or status for several causes.
        (client_error(403, "AccessDenied", "Request has expired"), "expired", True),
        (client_error(403, "AccessDenied", "protected by object lock."), "read-only", False),
        (client_error(403, "SignatureDoesNotMatch", "Signature expired: 2026"), "clock", False),
        (azure(403, "AuthenticationFailed", "not valid in the specified time frame"), "expired",
         True),
        (azure(403, "AuthenticationFailed", "Request date header too old"), "clock", False),
        (azure(403, "AuthorizationFailure", "Server failed to authenticate the request."),
         "credentials", False),
        (OSError("Forbidden: b/bucket/o\nRate Limit Exceeded"), "throttled", True),
        (OSError("Forbidden: b/bucket/o\nPermission denied on Cloud KMS key"), "key", False),
        (OSError("Forbidden: b/bucket/o\nsubject to bucket's retention policy"), "read-only",
         False),
        (refused_sign_in("invalid_grant: Check your iat and exp values"), "clock", False),
        (refused_sign_in("invalid_grant: Invalid JWT Signature."), "credentials", False),
        # What arrived was not what was sent.
        (client_error(400, "BadDigest"), "unreachable", True),
        (client_error(400, "IncompleteBody"), "unreachable", True),
        (azure(400, "Md5Mismatch"), "unreachable", True),
        # Of the status "in use", which no waiting ends.
        (azure(409, "InvalidBlobType"), "bad request", False),
        (azure(409, "BlobBeingRehydrated"), "archived", False),
        (TimeoutError(), "unreachable", True),
        (OSError(errno.ENOSPC, "full"), "no space", False),
        (OSError(errno.EDQUOT, "quota"), "quota", False),
        (OSError(errno.EROFS, "read-only"), "read-only", False),
        (OSError(errno.EACCES, "denied"), "denied", False),
        (OSError(errno.ENOTDIR, "a file"), "path", False),
        (OSError(errno.EISDIR, "a folder"), "path", False),
        (OSError(errno.ELOOP, "links"), "path", False),
        (OSError(errno.ENAMETOOLONG, "long"), "path", False),
        (OSError(errno.EIO, "broken"), "disk", False),
        (OSError(errno.ESTALE, "stale"), "disk", False),
        (OSError(errno.EMFILE, "files"), "limit", False),
        (like("safetensors", "SafetensorError").__class__("full (os error 28)"), "no space", False),
        (OSError("a protocol of its own"), "unknown", True),
        (RuntimeError("a protocol of its own"), "unknown", False),
        (like("somewhere", "TypeError", TypeError, status=5, code="x"), "unknown", False),
    ],
)  # fmt: skip
def test_an_error_is_judged_by_what_it_is(error: Exception, kind: str, may_pass: bool) -> None:
    failure = judge(error)
    assert (failure.kind, failure.may_pass) == (kind, may_pass)
    assert failure.answer


def wrapped(inner: BaseException, outer: BaseException, by: str) -> BaseException:
    """One error raised from another, in the ways that libraries have for it."""
    if by == "argument":
        return type(outer)("Failed to remove", inner)
    if by == "cause":
        outer.__cause__ = inner
    else:
        outer.__context__ = inner
    return outer


@pytest.mark.parametrize("by", ["cause", "context", "argument"])
@pytest.mark.parametrize("outer", [RuntimeError("it failed"), OSError("it failed"), ValueError()])
def test_the_answer_of_a_store_is_found_in_what_wraps_it(outer: Exception, by: str) -> None:
    for inner in (client_error(403, "InvalidAccessKeyId"), azure(403, "AuthenticationFailed")):
        failure = judge(wrapped(inner, outer, by))
        assert failure.kind == "credentials"
        assert "because" in failure.answer


def test_errors_that_wrap_each_other_are_judged_too() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert judge(one).answer == "RuntimeError: one"


def test_an_unknown_error_of_a_backend_ends_with_its_class_and_text() -> None:
    place = Location("memory://there/x")
    for error in (RuntimeError("strange"), KeyError("strange"), like("new.backend", "Odd")):
        words = rf"^memory://there/x: storage failed \({type(error).__name__}: "
        with pytest.raises(SfRayError, match=words) as seen, storage_errors(place):
            raise error
        assert seen.value.__cause__ is error


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_a_local_path_is_never_told_of_an_endpoint(number: int) -> None:
    words = r"^/a/path: .+ \(.+\); .+"
    with pytest.raises(SfRayError, match=words) as error, storage_errors(Location("/a/path")):
        raise OSError(number, "because", "/a/path")
    for word in ("endpoint", "credentials", "bucket", "--storage-options", " for 300 s"):
        assert word not in str(error.value)


def test_only_what_the_system_says_is_a_failure_of_the_disk() -> None:
    full = OSError(errno.ENOSPC, "full")
    translated = OSError(errno.EIO, "unknown code")
    translated.__cause__ = client_error(503, "SlowDown")
    assert failed_to_write(full)
    assert not failed_to_write(translated)
    assert disk_failure(PermissionError(errno.EACCES, "denied"))
    assert not disk_failure(client_error(403, "AccessDenied"))
    assert not failed_to_write(OSError("damaged content"))


def test_missing_is_missing_however_a_store_words_it() -> None:
    def failed(error: BaseException) -> SfRayError:
        made = SfRayError("failed")
        made.__cause__ = error
        return made

    for error in (FileNotFoundError(), azure(404, "BlobNotFound"), gcsfs(404, "notFound")):
        assert is_missing(failed(error))
    for other in (PermissionError(), azure(403, "AuthorizationFailure"), NotADirectoryError()):
        assert not is_missing(failed(other))
    assert not is_missing(SfRayError("failed"))


@pytest.mark.s3
@pytest.mark.parametrize("needed", ["token", "program"])
def test_a_missing_file_of_the_client_is_no_missing_object(
    store: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    needed: str,
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    absent = tmp_path / needed
    if needed == "token":
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(absent))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    else:
        (tmp_path / "config").write_text(f"[default]\ncredential_process = {absent}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    store.answers = [Answer(200)]
    s3fs.S3FileSystem.clear_instance_cache()  # another test's has its keys
    place = at(store, key=None, secret=None)
    for ask in (read_bytes_or_none, list_files, lambda place: put_bytes(place, b"x")):
        with pytest.raises(SfRayError, match=f"needs a file .*{absent}.*AWS_") as error:
            ask(place)
        assert not is_missing(error.value)
    # Its client logs the failure with a traceback.
    assert capfd.readouterr().err == ""
    assert store.requests == 0


def test_lines_for_the_support_of_a_store_are_left_out() -> None:
    text = "Server failed to authenticate.\nRequestId:1\nTime:2026\nErrorCode:AuthenticationFailed"
    made = type("HttpResponseError", (Exception,), {"__module__": "azure.core.exceptions"})(text)
    made.status_code = 403
    assert judge(made).answer == "Server failed to authenticate."


def test_a_response_of_another_kind_does_no_harm() -> None:
    odd: list[Mapping[str, Any] | object] = [{}, {"Error": {}}, object(), None, 5]
    for response in odd:
        assert judge(like("x", "Odd", response=response)).kind == "unknown"


def test_an_answer_that_was_cut_short_is_no_refusal() -> None:
    cut = ContentLengthError("Not enough data (received 1 of 2 bytes)")
    error = ClientPayloadError("Response payload is not completed")
    error.__cause__ = cut
    assert cut.code == 400
    assert [judge(each).may_pass for each in (error, cut)] == [True, True]
