import pytest
from ray.exceptions import RayError

from sf_ray.errors import SfRayError
from sf_ray.locations import Location
from sf_ray.tasks import parallel_map, user_errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ray::x\n  File y\nsf_ray.errors.SfRayError: shard a is broken\n\nmore",
            "shard a is broken",
        ),
        ("The actor died\nOSError: disk full", "a Ray task failed: OSError: disk full"),
    ],
)
def test_a_task_that_fails_says_why(text: str, message: str) -> None:
    with pytest.raises(SfRayError) as error, user_errors():
        raise RayError(text)
    assert str(error.value) == message


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_function_is_applied_to_every_item() -> None:
    assert list(parallel_map(str, [], 60)) == []
    items = [(Location("a"), n) for n in range(7)]
    assert sorted(parallel_map(lambda item: (item[1], item[0].uri), items, 60)) == [
        (n, "a") for n in range(7)
    ]
