import pytest

from sf_ray.config.registry import COMMANDS, load
from sf_ray.errors import UsageError

RUN = COMMANDS["run"]
GIVEN = {"input": "in", "output": "out", "model": "demo", "keep_fraction": "0.1"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep_fraction": "0"}, "--keep-fraction: input should be greater than 0"),
        ({"keep_fraction": "1.5"}, "--keep-fraction: input should be less than or equal to 1"),
        ({"keep_count": "5"}, "exclude each other"),
        ({"keep_fraction": None}, "how much to keep is missing"),
        ({"quota": "source=0.1"}, "--keep-fraction and --quota exclude each other"),
        ({"keep_fraction": None, "quota": "source"}, "--quota: expected COLUMN=0.1"),
        ({"min_answer_tokens": "9", "max_answer_tokens": "8"}, "--min-answer-tokens 9 must not"),
        ({"max_prompt_tokens": "-1"}, "--max-prompt-tokens: input should be greater than or"),
        ({"order": "score"}, "--order: input should be 'input' or 'ifd'"),
        ({"model": None}, "--model is missing"),
        ({"input": None}, "INPUT is missing"),
        ({"dtype": "float8"}, "--dtype: input should be 'auto', 'float32'"),
        ({"min_ifd": "1.0"}, "--min-ifd 1.0 must be below --max-ifd 1.0"),
        ({"by": "length-matched", "min_ifd": "1.0"}, "--min-ifd 1.0 must be below --max-ifd 1.0"),
        ({"columns": "prompt"}, "--columns: expected field=column"),
        ({"storage_options": "{"}, "--storage-options: expected a JSON object"),
        ({"input_storage_options": "{"}, "--input-storage-options: expected a JSON object"),
        ({"rank_by": "s-ifd"}, "--rank-by s-ifd needs the losses of tokens: add --token-losses"),
        ({"token_share": "0.5"}, "--token-share belongs to --rank-by s-ifd"),
        ({"rank_by": "s-ifd", "token_losses": True, "exact": True}, "leave --by and --rank-by out"),
        ({"near_duplicates_by": "text"}, "--near-duplicates-by belongs to --drop-near-duplicates"),
        ({"drop_near_duplicates": "0"}, "--drop-near-duplicates: input should be greater than 0"),
        ({"drop_near_duplicates": "95"}, "--drop-near-duplicates: input should be less than or"),
        ({"drop_near_duplicates": "0.9", "exact": True}, "leave --drop-near-duplicates out"),
        ({"max_length": "many"}, "--max-length: input should be a valid integer"),
    ],
)
def test_wrong_values_are_named_in_the_words_of_the_command_line(
    changes: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError) as error:
        load(RUN, {**GIVEN, **changes}, None)
    assert words in str(error.value)


@pytest.mark.parametrize("by", ["random", "longest", "ifd-low"])
def test_a_lower_bound_may_be_above_1_where_there_is_no_upper_one(by: str) -> None:
    assert load(RUN, GIVEN | {"by": by, "min_ifd": "1.0"}, None)
