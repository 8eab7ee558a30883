import shlex
from pathlib import Path

import pytest

from sf_ray.config.quotas import Quota
from sf_ray.config.registry import COMMANDS, command_line, load
from sf_ray.config.selection_options import RunOptions
from sf_ray.errors import UsageError

RUN = COMMANDS["run"]
GIVEN = {"input": "in", "output": "out", "model": "demo", "keep_fraction": "0.1"}


SECRETS = ["storage_options", "input_storage_options", "model_storage_options"]


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_not_repeated_in_errors(name: str) -> None:
    with pytest.raises(UsageError) as error:
        load(RUN, {**GIVEN, name: '["hunter2"]'}, None)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "slip",
    [
        "storage-options: {secret: canary}\n oops: x: y\n",
        "storage-options: {secret: canary",
        "secret: *canary\n",
        "secret: !canary x\n",
        "secret: %canary\n",
        "secret: 'canary\n",
        "secret: canary\n\tx: canary\n",
        "secret: canary\x00\n",
        "a: &canary 1\nb: &canary [\n",
    ],
)
def test_a_slip_of_yaml_is_placed_and_not_quoted(slip: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(slip)
    with pytest.raises(UsageError, match="job.yaml: not valid YAML: ") as error:
        load(RUN, {}, str(file))
    assert "canary" not in str(error.value)


def test_flags_win_over_the_file_and_a_count_replaces_a_fraction(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: in\noutput: out\nmodel: demo\nkeep-fraction: 0.5\nmax_length: 512\n")
    options = load(RUN, {"max_length": "256"}, str(file))
    assert isinstance(options, RunOptions)
    assert (options.max_length, options.keep_fraction) == (256, 0.5)
    counted = load(RUN, {"keep_count": "7"}, str(file))
    assert isinstance(counted, RunOptions)
    assert (counted.keep_count, counted.keep_fraction) == (7, None)


def test_a_quota_in_the_file_is_a_mapping_and_gives_way_to_a_count(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: i\noutput: o\nmodel: demo\nquota: {source: {code: 0.2, chat: 50}}\n")
    options = load(RUN, {}, str(file))
    assert isinstance(options, RunOptions)
    assert options.quota == Quota("source", {"code": 0.2, "chat": 50})
    assert load(RUN, {"keep_count": "7"}, str(file)).quota is None  # type: ignore[attr-defined]


def test_one_file_serves_several_commands(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: in\noutput: out\nscores: s\nmodel: demo\nkeep_fraction: 0.5\n")
    loaded = [
        load(COMMANDS[name], {}, str(file)).model_dump() for name in ("run", "score", "select")
    ]
    assert [options["input"] for options in loaded] == ["in"] * 3
    assert [options.get("keep_fraction") for options in loaded] == [0.5, None, 0.5]
    assert [options.get("model") for options in loaded] == ["demo", "demo", None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("keep_fractoin: 0.1", "unknown key 'keep_fractoin'; did you mean 'keep_fraction'?"),
        ("zzz: 1", "unknown key 'zzz'"),
        ("- a", "expected option names with values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match="job.yaml") as error:
        load(RUN, GIVEN, str(file))
    assert words in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match="nowhere.yaml: cannot be read"):
        load(RUN, GIVEN, "nowhere.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "sf-ray run in 's3://b/o p' --keep-fraction 0.1 --model m --actors 2:8 --drop-duplicates",
        'sf-ray run in out --model m --quota \'source:{"code": 0.2, "*": 50}\'',
        "sf-ray score in out --model m --columns prompt=q,completion=a.b --trust-remote-code",
        "sf-ray select in scores out --keep-count 5 --max-ifd 0.9 --diversify-to 0.02 --order ifd",
        "sf-ray compare a b --at 0.1,0.5",
        "sf-ray probe in --models a,b",
    ],
)
def test_options_become_the_command_line_that_gives_them(line: str) -> None:
    words = shlex.split(line)
    command = COMMANDS[words[1]]
    at = 2 + len(command.positional)
    flags: dict[str, object] = dict(zip(command.positional, words[2:at], strict=True))
    rest = iter(words[at:])
    for flag in rest:
        name = flag.removeprefix("--").replace("-", "_")
        is_switch = command.options.model_fields[name].annotation is bool
        flags[name] = True if is_switch else next(rest)
    known = [name for name in SECRETS if name in command.options.model_fields]
    secrets = dict.fromkeys(known, '{"key": "secret"}')
    options = load(command, flags | secrets, None)
    assert "secret" not in repr(options)
    written = command_line(options, lambda uri: uri.replace("s3://", "S3://"))
    assert sorted(shlex.split(written)) == sorted(shlex.split(line.replace("s3://", "S3://")))
    assert "secret" not in written
