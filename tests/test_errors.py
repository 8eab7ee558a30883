import pickle

import pytest

from sf_ray.errors import (
    BadRowError,
    BadShardError,
    ClusterError,
    EngineFailedError,
    LeaseError,
    SfRayError,
    TerminatedError,
    UsageError,
    first_line,
)

ERRORS = [
    SfRayError("one\ntwo"),
    UsageError("one\ntwo"),
    BadShardError("a/1.jsonl", "is cut off"),
    BadRowError("a/1.jsonl", 7, "line 8", "no JSON object"),
    EngineFailedError("CUDA error: illegal access", device_is_lost=True),
    ClusterError("a node was lost"),
    LeaseError("another run writes here"),
    TerminatedError("stopped"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_travels_between_processes_whole(error: SfRayError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_ray_appends_to_the_arguments_is_not_the_text(error: SfRayError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    copy.args = (f"{error}\nFailed to apply UDF transform after 1/1 attempts.", *copy.args[1:])
    assert str(copy) == str(pickle.loads(pickle.dumps(copy))) == str(error)


def test_exit_codes_are_those_of_the_command_line() -> None:
    assert [error.exit_code for error in ERRORS] == [1, 2, 1, 1, 1, 1, 1, 143]


def test_an_error_is_quoted_in_one_line() -> None:
    assert first_line(SfRayError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    long = first_line(ValueError("x" * 1000 + "end"))
    assert len(long) < 340
    assert long.endswith("xend")
    outer = ValueError("outer")
    outer.__cause__ = OSError("inner")
    assert first_line(outer) == "outer"
    assert first_line(outer, cause_first=True) == "inner"


FORGED = "a\x1b[2J\nerror: forged\u202e\r"
SECRETIVE = "https://user:canary@host/a?sig=canary"


def test_no_name_in_an_error_can_forge_a_line_or_hold_a_secret() -> None:
    for error in (
        SfRayError(f"{FORGED} {SECRETIVE}"),
        BadShardError(FORGED, f"{FORGED} {SECRETIVE}"),
        BadRowError(FORGED, 3, "line 4", f"{FORGED} {SECRETIVE}"),
        ClusterError(f"{FORGED} {SECRETIVE}"),
    ):
        again = pickle.loads(pickle.dumps(error))
        for text in (str(error), repr(error), str(again), getattr(error, "reason", "")):
            assert "canary" not in text
            assert not {"\x1b", "\r", "\u202e"} & {*text}
    shard = str(BadShardError(FORGED, "cut off"))
    assert shard.startswith("shard a\\x1b[2J\\nerror: forged\\u202e\\r: cut off;")
    assert BadShardError(FORGED, "cut off").shard == FORGED  # by which the shard is found


def test_an_error_is_no_longer_than_a_person_reads() -> None:
    assert len(str(SfRayError(f"names: {'x' * 10_000_000}"))) < 10_000
