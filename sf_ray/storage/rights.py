"""What "access denied" means: the name of the right that is missing, or that nothing is there.

Knows how S3 and its policies name rights, and that s3fs asks for a name below which nothing lies.
Other stores say which right is missing themselves. Knows no Ray and no model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sf_ray.errors import SfRayError, first_line
from sf_ray.storage.failure_words import Kind
from sf_ray.storage.failures import judge

if TYPE_CHECKING:
    from sf_ray.storage.location import Location

# What S3 calls the right to do an operation; all others are called like the operation.
_S3_RIGHTS = {
    "ListObjects": "ListBucket", "ListObjectsV2": "ListBucket", "ListObjectVersions": "ListBucket",
    "HeadBucket": "ListBucket", "HeadObject": "GetObject", "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject", "CompleteMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
}  # fmt: skip
# The codes of a right that is missing; others of the same status are about keys, tokens and clocks.
_NO_RIGHT = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}


@contextmanager
def denials_explained(location: "Location", method: str, path: str) -> Iterator[None]:
    """Says of an S3 request that was denied which right is missing, or that nothing is there.

    Who may list only a prefix of a bucket is told "denied" about objects that are absent, as is who
    may list nothing. The listing of the one name tells the difference.

    Args:
        location: The place that is asked.
        method: The method of the file system.
        path: What it is called with.

    Raises:
        FileNotFoundError: The object is absent.
        SfRayError: Names the right.
    """
    try:
        yield
    except PermissionError as error:
        denied = _denied_operation(error)
        if denied is None:
            raise
        right = _in_words(denied, path)
        if method in ("cat_file", "info"):
            try:
                if not _is_listed(location, path):
                    raise FileNotFoundError(path) from error
            except SfRayError:
                # What is denied about an absent object is the listing.
                right += f", or {_in_words('ListObjectsV2', path).rstrip('/')},"
        raise SfRayError(
            f"{location.public_uri}: access denied ({first_line(error, cause_first=True)}): "
            f"{right} is not allowed; docs/cluster.md, 'Rights', lists what a run needs; check the "
            "policy and the credentials, in the environment or --storage-options"
        ) from error


def _denied_operation(error: BaseException | None) -> str | None:
    """The S3 operation that a policy denies; None where something else is wrong."""
    answer = error and (error.__cause__ or error.__context__)
    response: Any = getattr(answer, "response", None)
    if answer is None or not isinstance(response, dict):
        return None
    said = response.get("Error", {})
    # The same code stands for keys that encrypt, for locked objects and for links that expired.
    if str(said.get("Code")) not in _NO_RIGHT or judge(answer).kind is not Kind.DENIED:
        return None
    return getattr(answer, "operation_name", None)


def _in_words(operation: str, path: str) -> str:
    right = f"s3:{_S3_RIGHTS.get(operation, operation)}"
    bucket, _, key = path.partition("/")
    if right == "s3:ListBucket":
        return f"{right} on {bucket} with the prefix {key}/" if key else f"{right} on {bucket}"
    return f"{right} on {bucket}/{key}"


def _is_listed(location: "Location", path: str) -> bool:
    """Whether an object has this name, or is below it.

    Raises:
        SfRayError: The listing is denied, or storage failed.
    """
    folder, _, name = path.rpartition("/")
    # The name itself comes before all names that begin with it.
    listed = location.call("find", folder, prefix=name, max_items=1) if folder else [path]
    return any(each == path or each.startswith(f"{path}/") for each in listed)


def find_below(location: "Location", root: str) -> dict[str, Any]:
    """Lists the files below a path: path -> fsspec's details.

    Raises:
        SfRayError: The listing is denied, or storage failed.
    """
    try:
        found: dict[str, Any] = location.call("find", root, detail=True)
    except SfRayError as error:
        folder, _, name = root.rpartition("/")
        if _denied_operation(error.__cause__) != "HeadObject":
            raise
        # s3fs asks for the root itself where nothing lies below it.
        found = location.call("find", folder, prefix=f"{name}/", detail=True)
    return found
