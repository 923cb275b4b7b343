"""Shows errors that say what to do where users read them: at the top of the run's page in the UI."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from tgn_assets.ml.safe_text import SafeError, safe_error


@contextmanager
def explained() -> Iterator[None]:
    """Turns errors that the user can fix (a wrong setting, a missing artifact) into a Failure with their message.

    All other errors are bugs, and keep their traceback. No error shows a secret, nor does one that it came from.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, SafeError):
            raise dg.Failure(description=str(error), allow_retries=False) from safe_error(error)
        if (shown := safe_error(error)) is not error:
            raise shown from None
        raise
