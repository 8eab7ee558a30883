"""Which answers of stores, libraries and the operating system mean which kind of failure.

Tables only. Of libraries it knows the names of exceptions, and imports none.
"""

import errno

from sf_ray.storage.failure_words import Kind


def _by(kinds: dict[Kind, str]) -> dict[str, Kind]:
    return {name: kind for kind, names in kinds.items() for name in names.split()}


# Error codes of Amazon S3, of stores that speak its language, of Azure and of Google.
BY_CODE = _by(
    {
        Kind.NOT_FOUND: "NoSuchBucket NoSuchKey NoSuchVersion ContainerNotFound BlobNotFound "
        "ResourceNotFound notFound",
        Kind.EXISTS: "PreconditionFailed BlobAlreadyExists ConditionNotMet conditionNotMet",
        Kind.DENIED: "AccessDenied AllAccessDisabled AccountProblem NotSignedUp InvalidPayer "
        "AuthorizationFailure AuthorizationPermissionMismatch AuthorizationProtocolMismatch "
        "AuthorizationResourceTypeMismatch AuthorizationServiceMismatch "
        "AuthorizationSourceIPMismatch InsufficientAccountPermissions PublicAccessNotPermitted "
        "AccountIsDisabled ContainerDisabled forbidden accountDisabled userProjectMissing",
        Kind.CREDENTIALS: "InvalidAccessKeyId SignatureDoesNotMatch InvalidToken InvalidSecurity "
        "InvalidClientTokenId UnrecognizedClientException AuthFailure CredentialsNotSupported "
        "MissingSecurityHeader MissingAuthenticationToken IncompleteSignature "
        "AuthenticationFailed InvalidAuthenticationInfo "
        "NoAuthenticationInformation KeyBasedAuthenticationNotPermitted required",
        Kind.EXPIRED: "ExpiredToken ExpiredTokenException TokenRefreshRequired RequestExpired "
        "ExpiredAuthenticationToken authError",
        Kind.CLOCK: "RequestTimeTooSkewed",
        Kind.REGION: "PermanentRedirect Redirect TemporaryRedirect AuthorizationHeaderMalformed "
        "IllegalLocationConstraintException",
        Kind.ARCHIVED: "InvalidObjectState RestoreAlreadyInProgress BlobArchived "
        "BlobBeingRehydrated",
        Kind.NO_SPACE: "XMinioStorageFull InsufficientStorage",
        Kind.QUOTA: "QuotaExceeded XMinioAdminBucketQuotaExceeded quotaExceeded",
        Kind.READ_ONLY: "BlobImmutableDueToPolicy retentionPolicyNotMet objectUnderActiveHold",
        Kind.CHANGED: "InvalidRange",
        Kind.BUSY: "OperationAborted ConditionalRequestConflict ContainerBeingDeleted "
        "LeaseIdMissing",
        Kind.THROTTLED: "SlowDown SlowDownRead SlowDownWrite Throttling ThrottlingException "
        "RequestLimitExceeded RequestThrottled TooManyRequests BandwidthLimitExceeded "
        "ServerBusy rateLimitExceeded userRateLimitExceeded",
        Kind.SERVER: "InternalError ServiceUnavailable OperationTimedOut backendError",
        # What arrived was not what was sent: the next time it may be.
        Kind.UNREACHABLE: "RequestTimeout IncompleteBody BadDigest InvalidDigest "
        "XAmzContentSHA256Mismatch XAmzContentChecksumMismatch Md5Mismatch Crc64Mismatch",
        # Of the status "in use", which nobody's waiting ends.
        Kind.BAD_REQUEST: "InvalidBlobType FeatureVersionMismatch SnapshotsPresent "
        "InvalidBucketState ResourceTypeMismatch",
    }
)
# Words of a refusal, in lower case, where its code or status stands for other causes too.
BY_WORDS = {
    "kms:": Kind.KEY,
    "cloudkms": Kind.KEY,
    "cloud kms": Kind.KEY,
    "specified time frame": Kind.EXPIRED,  # Azure's shared access signatures
    "request has expired": Kind.EXPIRED,  # S3's presigned links
    "date header": Kind.CLOCK,
    "signature expired": Kind.CLOCK,
    "signature not yet current": Kind.CLOCK,
    "iat and exp": Kind.CLOCK,  # Google's sign-in
    "invalid jwt signature": Kind.CREDENTIALS,
    "account not found": Kind.CREDENTIALS,
    "invalid_client": Kind.CREDENTIALS,
    "unauthorized_client": Kind.CREDENTIALS,
    "failed to authenticate the request": Kind.CREDENTIALS,
    "object lock": Kind.READ_ONLY,
    "worm protected": Kind.READ_ONLY,
    "retention policy": Kind.READ_ONLY,
    "requester pays": Kind.DENIED,
    "rate limit": Kind.THROTTLED,  # gcsfs drops the reason of a 403
}
BY_STATUS = {
    301: Kind.REGION, 302: Kind.REGION, 307: Kind.REGION, 308: Kind.REGION,
    401: Kind.CREDENTIALS, 403: Kind.DENIED, 404: Kind.NOT_FOUND, 407: Kind.PROXY,
    408: Kind.UNREACHABLE, 409: Kind.BUSY, 410: Kind.NOT_FOUND, 412: Kind.EXISTS,
    416: Kind.CHANGED, 423: Kind.BUSY, 425: Kind.THROTTLED, 429: Kind.THROTTLED, 451: Kind.DENIED,
    501: Kind.BAD_REQUEST, 505: Kind.BAD_REQUEST, 507: Kind.NO_SPACE, 511: Kind.PROXY,
}  # fmt: skip
# Classes by (package, name): those without an answer of a store.
_CLASSES = {
    "botocore": {
        Kind.CREDENTIALS: "NoCredentialsError PartialCredentialsError CredentialRetrievalError "
        "ProfileNotFound NoAuthTokenError TokenRetrievalError SSOError ConfigParseError",
        Kind.REGION: "NoRegionError InvalidRegionError",
        Kind.UNREACHABLE: "HTTPClientError ConnectionError IncompleteReadError",
        Kind.SERVER: "ResponseParserError",  # no S3 answer at all, as balancers give under load
        Kind.BAD_REQUEST: "ParamValidationError UnsupportedS3ConfigurationError",
    },
    "google": {
        Kind.CREDENTIALS: "DefaultCredentialsError MutualTLSChannelError",
        Kind.EXPIRED: "RefreshError",
        Kind.UNREACHABLE: "TransportError",
    },
    "sf_ray": {Kind.OWN_FILE: "OwnFileError"},
    "gcsfs": {Kind.UNREACHABLE: "ChecksumError"},
    "azure": {
        Kind.CREDENTIALS: "ClientAuthenticationError",  # CredentialUnavailableError too
        Kind.UNREACHABLE: "ServiceRequestError ServiceResponseError IncompleteReadError",
    },
    "aiohttp": {
        Kind.CERTIFICATE: "ClientConnectorCertificateError ServerFingerprintMismatch",
        Kind.PROXY: "ClientHttpProxyError",
        Kind.UNREACHABLE: "ClientConnectionError ClientPayloadError HttpProcessingError",
        Kind.BAD_REQUEST: "InvalidURL",
        Kind.REGION: "TooManyRedirects",
    },
    "httpx": {Kind.UNREACHABLE: "TransportError"},  # huggingface_hub 1
    "httpx2": {Kind.UNREACHABLE: "TransportError"},  # huggingface_hub 2
    "requests": {
        Kind.BAD_REQUEST: "InvalidURL MissingSchema InvalidSchema",
        Kind.UNREACHABLE: "ConnectionError Timeout ChunkedEncodingError",
    },
    "urllib3": {Kind.UNREACHABLE: "ProtocolError TimeoutError NewConnectionError"},
    "paramiko": {Kind.CREDENTIALS: "AuthenticationException"},
    "ftplib": {Kind.BUSY: "error_temp"},
    "http": {Kind.UNREACHABLE: "HTTPException"},
    # Both are an OSError with numbers of their own.
    "ssl": {Kind.UNREACHABLE: "SSLError"},
    "socket": {Kind.UNREACHABLE: "gaierror herror"},
}
BY_CLASS = {
    (package, name): kind
    for package, kinds in _CLASSES.items()
    for name, kind in _by(kinds).items()
}
BY_ERRNO = {
    number: kind
    for kind, numbers in {
        Kind.NOT_FOUND: (errno.ENOENT,),
        Kind.EXISTS: (errno.EEXIST,),
        Kind.DENIED: (errno.EACCES, errno.EPERM),
        Kind.NO_SPACE: (errno.ENOSPC,),
        Kind.QUOTA: (errno.EDQUOT,),
        Kind.READ_ONLY: (errno.EROFS,),
        Kind.PATH: (
            errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EILSEQ,
            errno.EINVAL,
        ),
        Kind.LIMIT: (errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ENOMEM),
        Kind.DISK: (
            errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EREMOTEIO,
            errno.EUCLEAN,
        ),
        Kind.BUSY: (errno.EBUSY, errno.EAGAIN, errno.ETXTBSY, errno.EDEADLK),
        Kind.UNREACHABLE: (
            errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED,
            errno.EPIPE, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN,
        ),
        Kind.BAD_REQUEST: (errno.ENOSYS, errno.EOPNOTSUPP),
    }.items()
    for number in numbers
}  # fmt: skip
