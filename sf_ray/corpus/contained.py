"""The wall around a row: whatever its content makes Python raise becomes a problem of that row.

Strangers write corpora. No list of exceptions is long enough for what nested, huge or broken values
make code raise, so every place that turns a row into something else (an example, token ids, a line
of an export, an excerpt in a report) calls its function through `contained`. Does not know what
the functions do.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sf_ray.corpus.examples import Problem
from sf_ray.corpus.fields import FieldError
from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError, first_line

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")
# A reason may quote the row, which may be of any length.
_MOST_CHARACTERS = 300


def contained(
    make: Callable[_Given, _Made], *given: _Given.args, **named: _Given.kwargs
) -> _Made | Problem:
    """Calls a function with the content of one row.

    Args:
        make: The function; what it returns, and all that it calls, depends on no other row.
        given, named: Its arguments.

    Returns:
        What the function returns, or why the row cannot be used.

    Raises:
        SfRayError: Raised by the function on purpose: it ends the run.
    """
    try:
        return make(*given, **named)
    except FieldError as error:
        return problem(error.reason, error.status)
    except SfRayError:
        raise
    except RecursionError:
        return problem("its values are nested too deeply")
    except MemoryError:
        return problem("it needs more memory than there is")
    except Exception as error:  # noqa: BLE001 - a stranger's row may raise anything
        return problem(f"it cannot be used ({type(error).__name__}: {first_line(error)})")


def problem(reason: str, status: Status = Status.BAD_ROW) -> Problem:
    """A problem whose reason has a bounded length."""
    is_long = len(reason) > _MOST_CHARACTERS
    return Problem(status, reason[:_MOST_CHARACTERS] + "..." * is_long)
