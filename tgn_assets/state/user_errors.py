"""Turns errors that users can fix into Dagster failures, which the UI shows at the top of the run's page."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from tgn_assets.ml.safe_text import SafeError, of_the_system, safe_error, safe_text


@contextmanager
def as_dagster_failure() -> Iterator[None]:
    """Turns errors that the user can fix (a wrong setting, a lost artifact, a full disk) into a Failure that says so.

    All other errors are bugs, and keep their traceback. No error shows a secret, nor does one that it came from.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, SafeError):
            raise dg.Failure(description=str(error), allow_retries=False) from safe_error(error)
        if isinstance(error, OSError) and error.strerror:
            raise dg.Failure(description=safe_text(of_the_system(error)), allow_retries=False) from safe_error(error)
        if (shown := safe_error(error)) is not error:
            raise shown from None
        raise
