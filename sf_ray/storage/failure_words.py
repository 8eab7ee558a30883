"""The kinds of storage failures, and the words for each.

Words only: which answer of a store is of which kind, `failure_tables` says.
"""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What may happen to a request to a file system or a store."""

    NOT_FOUND = "not found"
    EXISTS = "exists"
    DENIED = "denied"
    CREDENTIALS = "credentials"
    EXPIRED = "expired"
    CLOCK = "clock"
    REGION = "region"
    KEY = "key"
    ARCHIVED = "archived"
    HOST = "host"
    CERTIFICATE = "certificate"
    TLS = "tls"
    OWN_FILE = "own file"
    PROXY = "proxy"
    NO_SPACE = "no space"
    QUOTA = "quota"
    READ_ONLY = "read-only"
    PATH = "path"
    LIMIT = "limit"
    DISK = "disk"
    CHANGED = "changed"
    BUSY = "busy"
    THROTTLED = "throttled"
    SERVER = "server"
    UNREACHABLE = "unreachable"
    BAD_REQUEST = "bad request"
    UNUSABLE = "unusable"
    UNKNOWN = "unknown"


class Sentence(NamedTuple):
    """The words for a kind of failure.

    Attributes:
        happened: What happened.
        on_disk: What to do, for a path of this machine.
        in_store: What to do, for a URI; `{credentials}` stands for where that store's come from.
    """

    happened: str
    on_disk: str
    in_store: str


_GOES_ON = "the same command goes on where this one was"
_NETWORK = f"check the endpoint, the network and the credentials; {_GOES_ON}"
_MOUNT = f"look at the disk or its mount (dmesg, df); {_GOES_ON}"
_NAME = "choose another path"
_OPTIONS = "check the URI, --storage-options and the credentials"

SENTENCES = {
    Kind.NOT_FOUND: Sentence(
        "not found",
        "check the path, and that each machine of the cluster sees it",
        "check the name, and that the bucket exists",
    ),
    Kind.EXISTS: Sentence("something is there already", _NAME, "choose another name"),
    Kind.DENIED: Sentence(
        "access denied",
        "check who owns it and who may read and write there, on each machine",
        "check the credentials in the environment ({credentials}) or --storage-options, and what "
        "they may do there",
    ),
    Kind.CREDENTIALS: Sentence(
        "the credentials are missing or wrong",
        _MOUNT,
        "check those in the environment ({credentials}) or --storage-options, on each machine",
    ),
    Kind.EXPIRED: Sentence(
        "the credentials have expired",
        _MOUNT,
        "renew those in the environment ({credentials}) or --storage-options, on each machine; "
        f"then {_GOES_ON}",
    ),
    Kind.CLOCK: Sentence(
        "this machine's clock is wrong",
        "set the clock",
        f"set the clock, e.g. by NTP, on the machine that says so; then {_GOES_ON}",
    ),
    Kind.REGION: Sentence(
        "the bucket is in another region or behind another endpoint",
        _OPTIONS,
        "name it: AWS_REGION and AWS_ENDPOINT_URL, or client_kwargs and endpoint_url in "
        "--storage-options",
    ),
    Kind.KEY: Sentence(
        "the key that encrypts the bucket cannot be used",
        _OPTIONS,
        "let these credentials encrypt and decrypt with it (kms:GenerateDataKey, kms:Decrypt), or "
        "enable it",
    ),
    Kind.ARCHIVED: Sentence(
        "the object is archived",
        _OPTIONS,
        "restore it to a storage class that can be read, or take it out of the input",
    ),
    Kind.HOST: Sentence(
        "there is no server of that name",
        _OPTIONS,
        "check the account's name or the endpoint in the URI, the environment or "
        f"--storage-options; {_GOES_ON}",
    ),
    Kind.CERTIFICATE: Sentence(
        "the server's certificate is not trusted",
        _OPTIONS,
        "check the endpoint; for a certificate of your own, name its authority in AWS_CA_BUNDLE or "
        "SSL_CERT_FILE, on each machine",
    ),
    Kind.TLS: Sentence(
        "no secure connection can be made",
        _OPTIONS,
        "check whether the endpoint is https:// or http://, its port, and the file of trusted "
        f"certificates, on each machine; {_GOES_ON}",
    ),
    Kind.OWN_FILE: Sentence(
        "the store's client needs a file that is not there",
        _MOUNT,
        "check the paths of tokens, keys, certificates and programs in the environment (AWS_*, "
        "GOOGLE_*, AZURE_*), its configuration files and --storage-options, on each machine",
    ),
    Kind.PROXY: Sentence(
        "a proxy before the store refuses",
        _OPTIONS,
        "check HTTPS_PROXY and NO_PROXY, on each machine",
    ),
    Kind.NO_SPACE: Sentence(
        "no space is left",
        f"free some on that disk, or choose another one; then {_GOES_ON}",
        f"free some in that store, or choose another one; then {_GOES_ON}",
    ),
    Kind.QUOTA: Sentence(
        "the quota is used up",
        f"remove files or have the quota raised, or choose another disk; then {_GOES_ON}",
        f"remove objects or have the quota raised, or choose another bucket; then {_GOES_ON}",
    ),
    Kind.READ_ONLY: Sentence(
        "it cannot be written to",
        "choose a place that can, or mount it to be written to",
        "choose a place that can, or change the policy that forbids it",
    ),
    Kind.PATH: Sentence("no such path can be there", _NAME, "choose another name"),
    Kind.LIMIT: Sentence(
        "a limit of this process is reached",
        f"raise it (ulimit -a shows it), on each machine; {_GOES_ON}",
        f"raise it (ulimit -a shows it), on each machine; {_GOES_ON}",
    ),
    Kind.DISK: Sentence("the disk failed", _MOUNT, _NETWORK),
    Kind.CHANGED: Sentence(
        "it changed while it was read",
        "let nothing write there while the job runs; start the same command again",
        "let nothing write there while the job runs; start the same command again",
    ),
    Kind.BUSY: Sentence("it is in use", _MOUNT, f"wait for who uses it; {_GOES_ON}"),
    Kind.THROTTLED: Sentence(
        "storage failed",
        _MOUNT,
        f"the store asks for fewer requests: wait, or have its limit raised; {_GOES_ON}",
    ),
    Kind.SERVER: Sentence("storage failed", _MOUNT, _NETWORK),
    Kind.UNREACHABLE: Sentence("storage failed", _MOUNT, _NETWORK),
    Kind.BAD_REQUEST: Sentence("the store refuses the request", _NAME, _OPTIONS),
    Kind.UNUSABLE: Sentence("cannot be opened", "check the path", _OPTIONS),
    Kind.UNKNOWN: Sentence("storage failed", _MOUNT, f"{_OPTIONS}; {_GOES_ON}"),
}

_AZURE = "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
_GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS"
_AMAZON = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
CREDENTIALS_OF = {
    "s3": _AMAZON, "s3a": _AMAZON, "gs": _GOOGLE, "gcs": _GOOGLE, "az": _AZURE, "abfs": _AZURE,
    "abfss": _AZURE, "hf": "HF_TOKEN",
}  # fmt: skip
