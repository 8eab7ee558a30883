import pickle

from sf_ray.corpus.status import BAD, Status


def test_every_status_has_a_meaning() -> None:
    meanings = [status.meaning for status in Status]
    assert all(meanings)
    assert len({*meanings}) == len(Status)


def test_a_status_is_the_text_that_score_tables_hold() -> None:
    for status in Status:
        assert status == status.value == status.name.lower()
        assert Status(status.value) is pickle.loads(pickle.dumps(status)) is status


def test_faults_of_data_and_model_are_bad_and_what_the_window_excludes_is_not() -> None:
    assert {Status.BAD_ROW, Status.ENGINE_ERROR} < {*BAD}
    assert not {Status.OK, Status.PROMPT_FILLS_WINDOW, Status.ENDS_IN_USER_TURN} & {*BAD}
