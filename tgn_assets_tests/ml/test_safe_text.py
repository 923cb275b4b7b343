import traceback

import pytest

from tgn_assets.ml.connectors.object_store import StoreError
from tgn_assets.ml.safe_text import (
    LONGEST_MESSAGE,
    chat_text,
    holds_password,
    printable,
    redacted,
    safe_error,
    safe_text,
)
from tgn_assets.ml.sources.spec import SourceError, SourceSpec

SECRET = "s3cr3tW0rd"
PASSWORDS = [
    f"postgresql://u:{SECRET}@host/db",
    f"postgresql://u:p@{SECRET}/x@host/db",
    f"postgresql://u:{SECRET}?x@host/db",
    f"postgresql://u@host/db?password={SECRET}",
    f"postgresql://u@host/db?pass%77ord={SECRET}",
    f"postgresql://u@host/db?%70assword={SECRET}&connect_timeout=3",
    f"postgresql://u@host/db?sslpassword={SECRET}",
    f"host=db user=u password={SECRET} dbname=shop",
    f"host=db password = '{SECRET} and more'",
    f"jdbc:postgresql://host/db?user=u&password={SECRET}",
    f"Server=host;Uid=u;Pwd={SECRET};",
    f"https://u:{SECRET}@host/log.csv",
    f"https://u:{SECRET}@host:8080/log.csv",
    f"http://mlflow:{SECRET}@127.0.0.1:5000",
    f"s3://AKID:{SECRET}/x@bucket/log.csv",
]
TOKENS = [
    f"https://b.s3.amazonaws.com/log.csv?X-Amz-Credential={SECRET}%2F20240101&X-Amz-Signature={SECRET}&X-Amz-Expires=60",
    f"https://a.blob.core.windows.net/c/log.csv?sv=2022-11-02&sr=b&sig={SECRET}%2B%3D",
    f"https://storage.googleapis.com/b/log.csv?GoogleAccessId=a@b.iam&Expires=1700000000&Signature={SECRET}",
    f"https://host/log.csv?token={SECRET}",
    f"https://host/log.csv?tok%65n={SECRET}",
    f"https://host/log.csv?a=1;access_token={SECRET}",
    f"https://host/log.csv?access_key={SECRET}",
    f"https://host/log.csv?api_key={SECRET}#{SECRET}",
    f"https://host/log.csv?k={SECRET}",
    f"https://host/log.csv?{SECRET}",
    f"https://{SECRET}@host/log.csv",
    f"simplecache::https://host/log.csv?sig={SECRET}",
]
HARMLESS = [
    "log.csv",
    "/data/token=a/key=5/log.csv",
    "data/**/*.parquet",
    "s3://bucket/a:b@c.csv",
    "abfs://container@account.dfs.core.windows.net/log.csv",
    "postgresql://u@host:5432/db?schema=bi&connect_timeout=3",
    "https://host:8080/a@b.csv?version=2&from=2024-01-01&table=shop.clicks",
    "the column 'signature': it is there twice",
]
SENTENCES = [
    "400, message='no', url=URL('{}')",
    "API request to {} failed",
    "cannot read {}: try again",
    "({}), which is away",
]


@pytest.mark.parametrize("address", PASSWORDS)
def test_password_is_found_however_it_is_written(address: str) -> None:
    assert holds_password(address)


@pytest.mark.parametrize("address", [*TOKENS, *HARMLESS])
def test_other_addresses_hold_no_password(address: str) -> None:
    assert not holds_password(address)


@pytest.mark.parametrize("sentence", ["{}", *SENTENCES])
@pytest.mark.parametrize("address", [*PASSWORDS, *TOKENS])
def test_secret_of_an_address_is_hidden_in_any_sentence(address: str, sentence: str) -> None:
    shown = redacted(sentence.format(address))
    assert SECRET not in shown and "***" in shown
    assert redacted(shown) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_text_without_secret_stays_as_it_is(text: str) -> None:
    assert safe_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        f"Max retries exceeded with url: /log.csv?sig={SECRET} (Caused by x)",
        f"headers: {{'Authorization': 'Bearer {SECRET}'}}",
        f"Authorization: Basic {SECRET}",
        f"invalid dsn: password={SECRET}",
        f"the server says {SECRET}x is no user",
    ],
)
def test_secret_is_hidden_outside_of_addresses(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", f"{SECRET}x")
    assert SECRET not in redacted(text)


def test_alert_url_is_hidden_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGN_ALERT_URL", "https://hooks.example.org/T0/B0/word")
    assert redacted("POST https://hooks.example.org/T0/B0/word failed") == "POST *** failed"


def test_traceback_of_a_safe_error_has_no_secret_of_its_causes() -> None:
    def fail(how: str) -> None:
        try:
            try:
                raise OSError(f"https://host/log.csv?sig={SECRET} and \x1b[2J")
            except OSError as error:
                if how == "group":
                    raise ExceptionGroup("several", [error]) from None
                raise KeyError("during it") from (error if how == "cause" else None) if how != "context" else error
        except (KeyError, ExceptionGroup) as error:
            raise SourceError(f"TGN_SOURCE=https://u:{SECRET}@host/x is away") from safe_error(error)

    for how in ("cause", "context", "group"):
        with pytest.raises(SourceError) as raised:
            fail(how)
        text = "".join(traceback.format_exception(raised.value))
        assert SECRET not in text and "\x1b" not in text
        assert "RedactedError" in text and "OSError" in text


def test_error_that_may_be_shown_stays_itself() -> None:
    error = ValueError("line 3 is\nno record")
    error.add_note("harmless")
    assert safe_error(error) is error
    error.add_note(f"password={SECRET}")
    assert SECRET not in str(safe_error(error))


def test_message_of_a_safe_error_is_bounded() -> None:
    assert len(str(SourceError("x" * 10**6))) == LONGEST_MESSAGE
    assert str(StoreError("away\x1b]8;;http://evil\x07")) == r"away\x1b]8;;http://evil\x07"


def test_source_shows_no_token() -> None:
    for address in TOKENS:
        spec = SourceSpec(address)
        assert SECRET not in spec.shown + repr(spec)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tea & jam <1>", "tea & jam <1>"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]8;;http://evil\x1b\\", r"\x1b]8;;http://evil\x1b" + "\\"),
        ("\x9b2J", r"\x9b2J"),
        ("one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
        ("gnp\u202egpj.exe\u2066", r"gnp\u202egpj.exe\u2066"),
        ("a\u200bb\u00a0c\ufeff", r"a\u200bb\xa0c\ufeff"),
        ("\x00\udc80\U000e0041", r"\x00\udc80\U000e0041"),
        ("日本 é 👍", "日本 é 👍"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_chat_text_holds_no_link_and_calls_nobody() -> None:
    assert chat_text("<!channel> <http://evil|here> @channel @ann\x07") == (
        r"(!channel) (http://evil|here) @ channel @ann\x07"
    )
