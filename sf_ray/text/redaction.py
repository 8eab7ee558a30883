"""Secrets taken out of text that leaves: of URIs by their form, and of any text by their value.

Two nets, because each has holes. A password in a URI, a signature in its query and a key in
`name=value` are known by where they stand, wherever the text comes from: an error of a library
quotes the whole URL that it asked for. The values of storage options and of this process's
environment are known by themselves, wherever they stand. It does not know where the text goes.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote

# A value of a query that is as long as this is remembered whatever its name, others by their names.
_LONG = 16
_TELLING = re.compile(r"(?i)sig|token|key|secret|pass|cred|auth|sas|code")
# What stands in the place of a secret.
HIDDEN = "***"
# A shorter value is no secret that could be kept, and replacing it would garble every text.
_SHORTEST = 6
# Storage options that are no secrets, and that errors have to name.
_OPEN_OPTIONS = {
    "account_host", "account_name", "acl", "addressing_style", "bucket", "consistency",
    "default_acl",
    "default_location", "endpoint", "endpoint_url", "host", "hostname", "location", "mode",
    "namespace", "project", "protocol", "region", "region_name", "repo", "repo_type",
    "requestpayer", "requester_pays", "scheme", "serversideencryption", "signature_version",
    "target_protocol",
}  # fmt: skip
# Environment variables whose values are secrets, whoever's they are; and those of two clouds, which
# are secrets unless their names say otherwise.
_SECRET_VARIABLE = re.compile(
    r"(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|SAS|SIGNATURE)(_|$)"
    r"|CONNECTION_STRING|(^|_)(API|ACCESS|ACCOUNT|STORAGE|PRIVATE|AUTH)_?KEY$|^(AZURE|GOOGLE)_"
)
_OPEN_VARIABLE = re.compile(
    r"(NAME|ID|ACCOUNT|PROJECT|REGION|ZONE|HOST|CLOUD|PATH|FILE|DIR)$"
    r"|^GOOGLE_APPLICATION_CREDENTIALS$|^AWS_ACCESS_KEY_ID$"
)

# A URI, or a chain of them, up to where a text around it may go on.
_URI = re.compile(r"[A-Za-z][\w+.-]{0,40}://[^\s'\"<>`]*")
# A port, and so no beginning of a password with a slash in it.
_HOST_AND_PORT = re.compile(r"[^:]*(:\d*)?|\[[^\]]*\](:\d*)?")
# `name=value` of a query or fragment. A `?` of a glob is no query: no name and `=` follow on it.
# The value ends before the punctuation of a sentence that the URI stands in.
_PARAMETER = re.compile(
    r"(?P<name>[?&;#][\w.~%+-]+=)(?P<value>[^&;#\s'\"<>`]*[^&;#\s'\"<>`:,.)\]}])"
)
# Parameters of a query that say which file is meant, and nothing about who may read it.
_OPEN_PARAMETERS = (
    "versionid",
    "version",
    "revision",
    "generation",
    "download",
    "raw",
    "alt",
    "ref",
)
# A secret by the name before it, in a connection string, a printed dict, a header or YAML. As in
# the others, no part runs from any letter of a word to its end: a word can be 200 KB long.
_NAMED = re.compile(
    r"""(?ix)
    (?P<name> (?: secret | passw(?:or)?d | passphrase | account_?key | access_?key(?!_?id)
        | api_?key | private_?key | shared_?access_?signature | sas_?token | (?:access|session|auth|
        refresh|security|bearer)_?-?token | x-amz-[\w-]*signature | authorization ) [\w-]{0,40} )
    (?P<sign> ["']? \s* [=:] \s* )
    (?P<value> "[^"]*" | '[^']*' | (?:basic|bearer|negotiate|digest)\s+\S+ | [^\s"',;&}\])<>]+ )
    """
)
_BEARER = re.compile(r"(?i)\b(?P<kind>bearer|basic)\s+[\w.~+/-]{8,}=*")

# Values of storage options that this process was given.
_given: set[str] = set()


def public_uri(uri: str) -> str:
    """A URI, or a chain of them, without user names, passwords and the values of its query.

    Args:
        uri: A local path, which stays as it is, or a URI.
    """
    return "::".join(map(_public_link, uri.split("::"))) if "://" in uri else uri


def redact(text: str) -> str:
    """Any text without secrets: those of URIs in it, known ones, and those with a telling name.

    Args:
        text: An error of a library, a line of a log, a traceback.
    """
    if "://" in text:
        text = _URI.sub(lambda found: public_uri(found.group()), text)
    for secret in _spellings(known_secrets()):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    text = _BEARER.sub(rf"\g<kind> {HIDDEN}", text)
    return _NAMED.sub(rf"\g<name>\g<sign>{HIDDEN}", text)


def remember_secrets(uri: str = "", options: object = None) -> None:
    """Notes secrets that this process is given, for `redact` to replace wherever they appear.

    Args:
        uri: A URI, whose password and the values of whose query are secrets.
        options: Storage options: a mapping, whose values may be mappings and lists again.
    """
    if options:
        _given.update(_values(options))
    if "://" in uri:
        _given.update(value for value in _hidden_in(uri) if len(value) >= _SHORTEST)


def known_secrets() -> set[str]:
    """The values that may not appear in any text: given ones, and those of the environment."""
    return _given | {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST
        and _SECRET_VARIABLE.search(name)
        and not _OPEN_VARIABLE.search(name)
    }


def _hidden_in(uri: str) -> Iterator[str]:
    """What `public_uri` leaves out of a URI, but for the name of a user."""
    for link in uri.split("::"):
        rest = link.partition("://")[2]
        without_user = _without_user(rest)
        user = rest.removesuffix(without_user).removesuffix("@")
        yield user.partition(":")[2]
        for found in _PARAMETER.finditer(without_user):
            # A short value with an everyday name may be a word that other texts have too.
            is_telling = _TELLING.search(found["name"]) or len(found["value"]) >= _LONG
            if is_telling and _public_parameter(found) != found.group():
                yield unquote(found["value"])
                yield found["value"]


def _public_link(uri: str) -> str:
    """One URI without secrets."""
    scheme, sign, rest = uri.partition("://")
    if not sign:
        return uri
    return scheme + sign + _PARAMETER.sub(_public_parameter, _without_user(rest))


def _without_user(rest: str) -> str:
    """What stands behind `://`, without user name and password.

    They stand before the host. An "@" behind the host belongs to a name: hf://datasets/o/n@v1. But
    a password that nobody escaped may hold the slash that seems to end the host.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return rest[authority.rindex("@") + 1 :]
    if "@" in rest and not _HOST_AND_PORT.fullmatch(authority):
        return rest.partition("@")[2]
    return rest


def _public_parameter(found: re.Match[str]) -> str:
    is_open = found["name"][1:-1].lower() in _OPEN_PARAMETERS
    return found.group() if is_open else found["name"] + HIDDEN


def _values(value: object, name: str = "") -> Iterator[str]:
    """The secrets in the value of an option."""
    if isinstance(value, Mapping):
        for key, of_key in value.items():
            yield from _values(of_key, str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _values(item, name)
    elif isinstance(value, bytes):
        yield from _values(value.decode("utf-8", "replace"), name)
    elif isinstance(value, str) and len(value) >= _SHORTEST and name.lower() not in _OPEN_OPTIONS:
        yield value


def _spellings(secrets: Iterable[str]) -> list[str]:
    """Secrets as they are, as URLs and as JSON write them; the longest first.

    Else the rest of a long secret would stay behind a short one that it begins with.
    """
    spelt = {
        spelling
        for secret in secrets
        for spelling in (
            secret,
            quote(secret),
            quote(secret, safe=""),
            quote_plus(secret),
            json.dumps(secret)[1:-1],
            repr(secret)[1:-1],
        )
    }
    return sorted(spelt, key=lambda spelling: (-len(spelling), spelling))
