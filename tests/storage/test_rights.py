"""A proxy in front of a bucket answers as its policy would, also about objects that are absent."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest
from botocore.exceptions import ClientError

from bench.support.proxy import Proxy
from sf_ray.errors import SfRayError
from sf_ray.storage.files import is_there, put_bytes, read_bytes_or_none, remove
from sf_ray.storage.lease.files import try_rights
from sf_ray.storage.lease.lease import lease, refuse_if_held
from sf_ray.storage.listing import list_files, list_input
from sf_ray.storage.location import Location
from sf_ray.storage.rights import _S3_RIGHTS, denials_explained
from tests.support.storage import S3

pytestmark = pytest.mark.s3


@dataclass
class Policy:
    """What may be done where: right -> prefixes of keys."""

    direct: Location
    bucket: str
    allowed: dict[str, list[str]] = field(default_factory=dict)

    def denies(self, method: str, path: str, query: str, _headers: str) -> bool:
        key = unquote(path).removeprefix(f"/{self.bucket}").removeprefix("/")
        asked = parse_qs(query, keep_blank_values=True)
        if not key:
            return not self._allows("list", asked.get("prefix", [""])[0])
        right = {"PUT": "put", "POST": "put", "DELETE": "delete"}.get(method, "get")
        if right == "get" and "" not in self.allowed["list"]:
            # S3 knows no prefix when an object is asked for: who may not list all is denied.
            right_to_know = self.direct.fs.exists(f"{self.bucket}/{key}")
            return not (right_to_know and self._allows("get", key))
        return not self._allows(right, key)

    def _allows(self, right: str, key: str) -> bool:
        return any(key.startswith(prefix) for prefix in self.allowed[right])


@pytest.fixture
def policy(s3: S3) -> Iterator[tuple[Policy, Location]]:
    proxy = Proxy(str(s3.options["endpoint_url"]))
    policy = Policy(Location(s3.bucket, s3.options), s3.bucket.removeprefix("s3://"))
    policy.allowed = {right: ["out/"] for right in ("list", "get", "put", "delete")}
    proxy.denies = policy.denies
    yield policy, Location(s3.bucket, s3.options | {"endpoint_url": proxy.endpoint}, retry_s=1)
    proxy.close()


def test_a_listing_that_is_restricted_to_a_prefix_is_enough(
    policy: tuple[Policy, Location],
) -> None:
    place = policy[1].join("out")
    refuse_if_held(place)
    assert list_input(place).files == list_files(place.join("data")) == []
    assert read_bytes_or_none(place.join("manifest.json")) is None
    assert not is_there(place.join("manifest.json"))
    with lease(place):
        put_bytes(place.join("manifest.json"), b"{}")
        assert is_there(place.join("manifest.json"))
        # A name that another one begins with.
        assert read_bytes_or_none(place.join("manifest")) is None
    remove(place.join("manifest.json"))
    assert policy[0].direct.fs.find(f"{policy[0].bucket}") == []


@pytest.mark.parametrize(
    ("right", "words"),
    [
        ("list", "s3:ListBucket on {bucket} with the prefix out/_lease/ is not allowed"),
        ("get", "s3:GetObject on {bucket}/out/_lease/.probe-"),
        ("put", "s3:PutObject on {bucket}/out/_lease/.probe-"),
        ("delete", "s3:DeleteObject on {bucket}/out/_lease/.probe-"),
    ],
)
def test_a_right_that_is_missing_is_named_when_the_lease_is_taken(
    policy: tuple[Policy, Location], right: str, words: str
) -> None:
    rules, place = policy[0], policy[1].join("out")
    rules.allowed[right] = []
    with pytest.raises(SfRayError) as error, lease(place):
        pytest.fail("the run would go on")
    assert words.format(bucket=rules.bucket) in str(error.value)
    for each in ("out/_lease", "access denied", "docs/cluster.md, 'Rights'", "check the policy"):
        assert each in str(error.value)
    assert rules.direct.fs.find(rules.bucket) == []


@pytest.mark.parametrize(
    ("right", "name"),
    [("get", "s3:GetObject"), ("put", "s3:PutObject"), ("delete", "s3:DeleteObject")],
)
def test_rights_on_a_part_of_the_output_are_tried_too(
    policy: tuple[Policy, Location], right: str, name: str
) -> None:
    rules, place = policy[0], policy[1].join("out")
    try_rights(place.join("data"))
    rules.allowed[right] = ["out/_lease/"]
    with lease(place), pytest.raises(SfRayError, match=f"{name} on .*/out/data/.probe-"):
        try_rights(place.join("data"))
    assert rules.direct.fs.find(rules.bucket) == []


def test_an_input_that_may_not_be_listed_says_so(policy: tuple[Policy, Location]) -> None:
    rules, place = policy
    put_bytes(rules.direct.join("in/a.jsonl"), b"{}")
    for listed in ("in", "in/*.jsonl"):
        with pytest.raises(SfRayError, match=r"s3:ListBucket on [^/]* with the prefix in/"):
            list_input(Location(f"{place.uri}/{listed}", place.storage_options, 1))
    rules.allowed["list"] = ["in/"]
    (file,) = list_input(place.join("in")).files
    # What may be listed need not be there to be read.
    with pytest.raises(SfRayError, match=r"s3:GetObject on [^/]*/in/a.jsonl is not allowed"):
        read_bytes_or_none(place.join("in/a.jsonl"))
    assert file.relative == "a.jsonl"


def test_the_page_of_rights_has_every_one_that_an_error_names() -> None:
    page = (Path(__file__).parents[2] / "docs/cluster.md").read_text(encoding="utf-8")
    section = page.partition("## Rights\n")[2].partition("\n## ")[0]
    for right in (*_S3_RIGHTS.values(), "AbortMultipartUpload"):
        assert f"`s3:{right}`" in section
        assert f'"s3:{right}"' in section  # the policy to copy


def test_wrong_keys_are_no_missing_right(policy: tuple[Policy, Location]) -> None:
    answer = ClientError({"Error": {"Code": "InvalidAccessKeyId"}}, "ListObjectsV2")
    with pytest.raises(PermissionError), denials_explained(policy[1], "find", "bucket/in"):
        raise PermissionError("no such key id") from answer
