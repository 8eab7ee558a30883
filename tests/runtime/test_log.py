import json
import logging

import pytest

from sf_ray.runtime import log
from sf_ray.runtime.log import (
    LogSettings,
    duration,
    json_line,
    log_settings,
    run_id,
    say,
    timed,
    use_log_settings,
    worker_environment,
)


@pytest.fixture(autouse=True)
def no_settings_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_settings", None)
    for name in ("SF_RAY_LOG_FORMAT", "SF_RAY_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_text_is_the_line_alone(capsys: pytest.CaptureFixture[str]) -> None:
    say("note: it rains", shard="a", rows=3)
    assert capsys.readouterr() == ("", "note: it rains\n")


def test_json_has_time_level_message_run_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    use_log_settings(LogSettings("json", "r1"))
    say("note: 100 % of ümlauts\nand a second line", shard="a", rows=3)
    said = json.loads(capsys.readouterr().err)
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "level": "WARNING",
        "message": "100 % of ümlauts\nand a second line",
        "run_id": "r1",
        "shard": "a",
        "rows": 3,
    }


@pytest.mark.parametrize(
    ("line", "level", "expected"),
    [
        ("plan: 3 shards", None, ("INFO", "plan: 3 shards")),
        ("note: careful", None, ("WARNING", "careful")),
        ("error: broken", None, ("ERROR", "broken")),
        ("note: as it is", logging.DEBUG, ("DEBUG", "note: as it is")),
    ],
)
def test_a_line_says_its_level(line: str, level: int | None, expected: tuple[str, str]) -> None:
    said = json.loads(json_line(line, "r1", {}, level))
    assert (said["level"], said["message"]) == expected


def test_workers_speak_as_their_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_environment() == {}  # text: nothing that Ray had to start other processes for
    use_log_settings(LogSettings("json", "r1"))
    for name, value in worker_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(log, "_settings", None)
    assert log_settings() == LogSettings("json", "r1")


def test_a_run_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_id()
    assert first == run_id()
    monkeypatch.setattr(log, "_settings", None)
    assert run_id() != first


def test_a_stage_says_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    use_log_settings(LogSettings("json", "r1"))
    wall_s: dict[str, float] = {}
    with timed("plan", wall_s):
        pass
    said = json.loads(capsys.readouterr().err)
    assert (said["message"], said["stage"]) == ("plan: 0 s", "plan")
    assert said["seconds"] == round(wall_s["plan"], 3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59, "59 s"),
        (312, "5 min 12 s"),
        (12_000, "3 h 20 min"),
        (86_400, "24 h 0 min"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


FORGED = "shard a\nerror: forged \x1b[2J\x9b1A\r\u202e\ud800 https://u:canary@h/a?sig=canary"


def test_a_line_of_text_cannot_be_forged_and_has_no_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(f"note: {FORGED}")
    assert capsys.readouterr().err == (
        "note: shard a\n  error: forged \\x1b[2J\\x9b1A\\r\\u202e\\ud800 https://h/a?sig=***\n"
    )


def test_a_line_of_json_cannot_be_forged_and_has_no_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_log_settings(LogSettings("json", "r1"))
    say(FORGED, shard=FORGED)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert not {"\x1b", "\x9b", "\r", "\u202e"} & {*line}
    said = json.loads(line)
    public = FORGED.replace("u:canary@", "").replace("canary", "***")
    assert said["message"] == said["shard"] == public
