"""Text for people: without secrets, without characters that a terminal obeys, and not too long.

Ids, names of files and columns, and what drivers say are other people's text. It is escaped where it is shown, by the
one function of that medium, and never changed where a machine reads it:

- messages, logs and terminal: `printable`; errors whose text is read by people are `SafeError`s, which see to it;
- the weekly page: Jinja's escaping of HTML, on top of `printable`;
- Dagster: metadata of text and tables, which its UI escapes. Markdown is given to it only for pictures without ids;
- webhooks: `chat_text`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from errno import EACCES, EDQUOT, ENOSPC, EPERM, EROFS
from urllib.parse import unquote

HIDDEN = "***"
SECRET_NAME = (
    r"[\w.-]*(?:pass(?:word|wd|phrase)|pwd|secret|signature|token|credential|api[-_.]?key|access[-_.]?key|account[-_.]?key"
    r"|private[-_.]?key|authorization|sharedkey)[\w.-]*"
)
# An unencoded @, ? or slash in a password must not hide it. What follows a colon may be a port, but PostgreSQL's URLs
# have no @ after one.
PASSWORD = re.compile(
    r"^postgres(?:ql)?://[^@]*:[^@]*@|://[^/@]*:(?!\d+(?:/|$))[^@]*@"
    r"|(?:^|[?&;\s])\s*(?:ssl)?(?:password|passwd|pwd|oauth_client_secret)\s*=",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://(?:[^\s'\"<>`]|'(?=[^\s'\"]*@))+", re.IGNORECASE)
HARMLESS_VALUE = re.compile(r"[a-z_.-]{0,24}|\d{1,8}|\d{4}-\d\d-\d\d|true|false", re.IGNORECASE)
"""Values of a URL's parameters that can hardly be a secret; all others are hidden."""
ASSIGNMENT = re.compile(
    rf"""(?<![\w/.%-])((?:{SECRET_NAME}|sig)(?:\s*=\s*|['"]\s*:\s*(?=['"])))"""
    r"""('[^']*'|"[^"]*"|(?!\*\*\*)[^\s&,;'")\]}]+)""",
    re.IGNORECASE,
)
SCHEME = re.compile(r"\b(bearer|basic)\s+[\w+/=.~-]{8,}", re.IGNORECASE)
SECRET_ADDRESSES = ("TGN_ALERT_URL",)
"""Environment variables with a URL whose very path is a secret."""
LONGEST_MESSAGE = 4000
SHORTEST = 8
"""Characters of a secret in the environment that is looked for: shorter ones are parts of words."""


def holds_password(address: str) -> bool:
    """Whether `address`, a URL or a connection string, has a password in it, however it is encoded.

    >>> holds_password("postgresql://ann:secret@host/shop"), holds_password("https://host:8080/log.csv")
    (True, False)
    >>> holds_password("postgresql://host/shop?pass%77ord=x"), holds_password("host=db password=x")
    (True, True)
    """
    return any(PASSWORD.search(text) for text in _decoded(address))


def redacted(text: str) -> str:
    """`text`, an address or a sentence with some in it, without what may be a secret.

    Of a URL, passwords are hidden, of the web whoever stands before the host, and each parameter that is not evidently
    harmless. Elsewhere, what is assigned to a name such as `password` or `token` is.

    >>> redacted("https://host/log.csv?version=2&X-Amz-Signature=9f3a")
    'https://host/log.csv?version=2&X-Amz-Signature=***'
    >>> redacted("no answer from postgresql://ann:p@ss@host/shop: password='p@ss'")
    'no answer from postgresql://***@host/shop: password=***'
    """
    for secret in _secrets_of_the_environment():
        text = text.replace(secret, HIDDEN)
    text = ADDRESS.sub(lambda found: _redacted_address(found[0]), text)
    text = SCHEME.sub(rf"\1 {HIDDEN}", text)
    return ASSIGNMENT.sub(rf"\1{HIDDEN}", text)


def safe_error(error: BaseException) -> BaseException:
    """`error`, or, if it or one that led to it is not fit to be shown, an error that says the same in safe text.

    Dagster, and a traceback, show the whole chain.
    """
    chain = list(_chain(error))
    if all(text == safe_text(text) for text in map(_text, chain)):
        return error
    said = dict.fromkeys(f"{type(link).__name__}: {safe_text(_text(link))}" for link in chain)
    return RedactedError("; caused by ".join(said)).with_traceback(error.__traceback__)


class RedactedError(Exception):
    """Stands for an error whose text was not fit to be shown."""


class SafeError(Exception):
    """An error whose message is `safe_text`: the base of all errors that users read."""

    def __init__(self, message: str = "") -> None:
        super().__init__(safe_text(message))


def safe_text(text: str) -> str:
    """`text` from anywhere, as a message or a log may show it: no secrets, no control characters, not too long."""
    return shortened(printable(redacted(text), keep="\n\t"), LONGEST_MESSAGE)


def printable(text: str, keep: str = "") -> str:
    """`text` with whatever is not printable escaped, but for the characters `keep`: controls, marks that change the
    direction of writing, blanks that cannot be told from others.

    >>> print(printable("a\\x1b[2Jb\\u202ec"))
    a\\x1b[2Jb\\u202ec
    """
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown)


def shortened(text: str, length: int = 80) -> str:
    """`text` with "..." in the place of its middle if it has more than `length` characters.

    >>> [shortened("abcdefghijkl", length) for length in (12, 9, 8)]
    ['abcdefghijkl', 'abc...jkl', 'abc...kl']
    """
    if len(text) <= length:
        return text
    end = (length - 3) // 2
    return f"{text[: length - 3 - end]}...{text[len(text) - end :]}"


def listed(names: Iterable[str], most: int = 20) -> str:
    """The first of `names` for a message, each between quotes and shortened.

    >>> listed(["user", "a\\nb", "c"], 2)
    "'user', 'a\\\\nb' and 1 more"
    """
    shown = [shortened(repr(name)) for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def first_line(error: BaseException) -> str:
    """The first line of what `error` says, without the full stop; its type if it says nothing.

    >>> first_line(ValueError("no such week.\\nSee above.")), first_line(ValueError())
    ('no such week', 'ValueError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".!")


def of_the_system(error: OSError) -> str:
    """What to say about an error with a strerror: a full disk, a missing right, a folder in place of a file."""
    file = error.filename2 or error.filename  # of a renaming, what was to be replaced
    if error.errno in (EACCES, EPERM, EROFS):
        what = file or "the output or a file of the home"
        return f"{what} cannot be used: {(error.strerror or 'error').lower()}; give this user the right to"
    text = f"{error.strerror}{f': {file}' if file else ' for the output or a file of the home'}"
    if error.errno in (ENOSPC, EDQUOT):
        return f"{text}; make room and try again: `tgn doctor` says how much is free"
    return f"{text}; `tgn doctor` checks the whole home"


def chat_text(text: str) -> str:
    """`text` for a chat service: nothing in it is a link, markup or a call for everybody's attention.

    >>> chat_text("<!channel> <http://a|b> @here")
    '(!channel) (http://a|b) @ here'
    """
    text = safe_text(text).replace("<", "(").replace(">", ")")
    return re.sub(r"@(?=(?:channel|here|all|everyone)\b)", "@ ", text)


def _redacted_address(address: str) -> str:
    end = re.search(r"[).,;:\]}]*$", address)
    address, rest = (address[: end.start()], end[0]) if end else (address, "")
    scheme, _, after = address.partition("://")
    if holds_password(address) and "@" in after:
        after = f"{HIDDEN}@{after.rpartition('@')[2]}"
    elif scheme.lower().endswith(("http", "https")):
        after = re.sub(r"^[^/?#@]*@", f"{HIDDEN}@", after)
    place, mark, query = after.partition("?")
    place, _, fragment = place.partition("#")
    query, _, other = query.partition("#")
    pairs = [_redacted_pair(pair, scheme.lower()) for pair in re.split("(?<=[&;])", query)]
    return f"{scheme}://{place}{mark}{''.join(pairs)}{f'#{HIDDEN}' if fragment or other else ''}{rest}"


def _redacted_pair(pair: str, scheme: str) -> str:
    name, sign, value = pair.partition("=")
    end = value[-1:] if value[-1:] in ("&", ";") else ""
    value = value.removesuffix(end) if end else value
    secret_name = any(re.fullmatch(rf"{SECRET_NAME}|sig|key|auth|code", text, re.IGNORECASE) for text in _decoded(name))
    if not sign:  # a token may stand alone
        return pair if HARMLESS_VALUE.fullmatch(pair.rstrip("&;")) else HIDDEN + pair[len(pair.rstrip("&;")) :]
    if secret_name or not (scheme.startswith("postgres") or HARMLESS_VALUE.fullmatch(value)):
        value = HIDDEN
    return f"{name}={value}{end}"


def _secrets_of_the_environment() -> list[str]:
    """The values of variables such as PGPASSWORD, the longest first; a path is that of a file with the secret."""
    found = [
        value
        for name, value in os.environ.items()
        if name in SECRET_ADDRESSES or re.fullmatch(SECRET_NAME, name, re.IGNORECASE)
    ]
    return sorted((value for value in found if len(value) >= SHORTEST and value[0] not in "/~"), key=len, reverse=True)


def _decoded(text: str) -> Iterator[str]:
    """`text`, and what it stands for if it is percent-encoded, once or more often."""
    yield text
    while (plain := unquote(text)) != text:
        text = plain
        yield text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, what it was raised from or during, and the members of groups among them."""
    seen, waiting = set[int](), [error]
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, None if link.__suppress_context__ else link.__context__]
        waiting += link.exceptions if isinstance(link, BaseExceptionGroup) else ()


def _text(error: BaseException) -> str:
    return " ".join([str(error), *getattr(error, "__notes__", ())])
