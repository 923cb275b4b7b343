"""URLs must not hold passwords: they are shown in the UI and written into logs."""

import re

# An unencoded @, ? or slash in a password must not hide it. What follows a colon may be a port, but PostgreSQL's URLs
# have no @ after one.
PASSWORD = re.compile(
    r"^postgres(?:ql)?://[^@]*:[^@]*@|://[^/@]*:(?!\d+(?:/|$))[^@]*@|[?&](?:ssl)?password=", re.IGNORECASE
)


def holds_password(url: str) -> bool:
    """Whether `url` has a password in it.

    >>> holds_password("postgresql://ann:secret@host/shop"), holds_password("https://host:8080/log.csv")
    (True, False)
    """
    return bool(PASSWORD.search(url))
