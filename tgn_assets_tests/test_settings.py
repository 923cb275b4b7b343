import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from tgn_assets.ml.export.destinations import DESTINATIONS
from tgn_assets.settings import Settings, SettingsError, given_settings, read_settings

PASSWORD = "it holds a password; take it out: credentials are read from the environment alone"
NO_VALUE = r"\.env, line 2: .* is not NAME=value, or a quote does not end"


pytestmark = pytest.mark.usefixtures("no_settings")


def test_the_environment_goes_before_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TGN_USER_COLUMN=customer\nTGN_EVENT_COLUMN=item\nOTHER_TOOL=1\n")
    monkeypatch.setenv("TGN_EVENT_COLUMN", "product")
    assert (read_settings().user_column, read_settings().event_column) == ("customer", "product")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGN_START_WEEK", "")
    assert read_settings().start_week is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TGN_START_WEEK", "2024-01-03", "TGN_START_WEEK: 2024-01-03 is a Wednesday; .* 2024-01-01"),
        ("TGN_TIME_ZONE", "CEST?", "TGN_TIME_ZONE: 'CEST?' is no IANA time zone; write one such as Europe/Berlin"),
        ("TGN_END_WEEK", "soon", "TGN_END_WEEK: 'soon' is no date; write the Monday of the week as YYYY-MM-DD"),
        (
            "TGN_EXPORT_PARQUET",
            "https://host/out",
            "TGN_EXPORT_PARQUET: https://host/out is no object store; name a folder, or a URL such as s3://bucket/prefix",
        ),
        ("TGN_EXPORT_PARQUET", "s3://id:word@bucket/out", f"TGN_EXPORT_PARQUET: {PASSWORD}"),
        (
            "TGN_EXPORT_PARQUET",
            "postgresql://id:word@host/bi",
            "TGN_EXPORT_PARQUET: it is a database; set TGN_EXPORT_POSTGRES to it",
        ),
        ("TGN_SOURCE", "s3://id:word@bucket/log.csv", f"TGN_SOURCE: {PASSWORD}"),
        ("TGN_OWNER", "me", "TGN_OWNER: 'me' is neither an e-mail address nor team:<name>"),
        ("TGN_SORCE", "log.csv", "TGN_SORCE is not a setting; did you mean TGN_SOURCE?"),
        (
            "TGN_TIMESTAMP_FORMAT",
            "DD/MM/YYYY",
            "TGN_TIMESTAMP_FORMAT: 'DD/MM/YYYY' has no directive of strptime, such as %Y; write %d.%m.%Y %H:%M or .*",
        ),
        ("TGN_TIMESTAMP_FORMAT", "%Y-%m", "TGN_TIMESTAMP_FORMAT: '%Y-%m' has no day, so that .*"),
        (
            "TGN_TIMESTAMP_FORMAT",
            "%Y-%m-%d %I:%M",
            "TGN_TIMESTAMP_FORMAT: .* has hours of half a day, %I, .*",
        ),
        ("TGN_TIME_ZONE", "Europe", "TGN_TIME_ZONE: 'Europe' is no IANA time zone; .*"),
        ("TGN_HOME", "~nobody-here/home", "TGN_HOME: ~nobody-here/home begins with ~ and the name of a user .*"),
        ("TGN_SOURCE", "~nobody-here/log.csv", "TGN_SOURCE: ~nobody-here/log.csv begins with ~ and the name of .*"),
        ("TGN_TIMESTAMP_FORMAT", "%Y-%m-%d %H:%M %Z", "TGN_TIMESTAMP_FORMAT: %Z reads names of zones, .* write %z, .*"),
        ("TGN_KEEP_WEEKS", "999999999999", "TGN_KEEP_WEEKS: Input should be less than or equal to 5000"),
        ("TGN_HOME", "homes?/a", "TGN_HOME: .*/homes?/a has '?', which means something else in the URL of .*"),
        ("TGN_HOME", "my%20home", "TGN_HOME: .*/my%20home has '%20', .*"),
        ("TGN_HOME", 300 * "a", "TGN_HOME: its path, or a name in it, is longer than the file system allows"),
        ("TGN_HOME", "", "TGN_HOME is set and empty; name one, or unset it for the folder .tgn"),
        ("TGN_SOURCE", "", "TGN_SOURCE is set and empty; name one, or unset it for the synthetic log"),
        ("TGN_TIMESTAMP_FORMAT", "%H:%M:%S", "TGN_TIMESTAMP_FORMAT: '%H:%M:%S' has no year, and so no date; .*"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{message.replace('?', '[?]')}$"):
        read_settings()


def test_a_folder_in_the_place_of_the_env_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(SettingsError, match=r"\.env is a folder and should be a file"):
        read_settings()
    (tmp_path / ".env").rmdir()
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(SettingsError, match=r"\.env is a pipe, and is read more than once: make it a file"):
        read_settings()


def test_state_and_exports_cannot_lie_among_the_files_of_the_log(tmp_path: Path) -> None:
    given_settings({"home": tmp_path / ".tgn", "source": str(tmp_path)})  # is passed over
    given_settings({"home": tmp_path / "home", "source": str(tmp_path / "log.csv")})
    with pytest.raises(SettingsError, match=r"home=.* lies in the folder source"):
        given_settings({"home": tmp_path / "home", "source": str(tmp_path)})
    with pytest.raises(SettingsError, match=r"export_parquet=.* lies in the folder source"):
        given_settings({"home": tmp_path / ".tgn", "source": str(tmp_path), "export_parquet": str(tmp_path / "out")})


def test_no_destination_can_write_among_the_files_of_the_log(tmp_path: Path) -> None:
    class WithAnother(Settings):
        export_csv: str | None = None

    with pytest.raises(ValidationError, match=r"TGN_EXPORT_CSV=.* lies in the folder TGN_SOURCE"):
        WithAnother(_env_file=None, source=str(tmp_path), home=tmp_path / ".tgn", export_csv=str(tmp_path / "out"))


def test_the_last_week_cannot_come_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGN_START_WEEK", "2024-01-08")
    monkeypatch.setenv("TGN_END_WEEK", "2024-01-01")
    with pytest.raises(SettingsError, match="TGN_END_WEEK=2024-01-01 comes before TGN_START_WEEK=2024-01-08"):
        read_settings()


def test_given_settings_read_neither_environment_nor_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TGN_USER_COLUMN=customer\n")
    monkeypatch.setenv("TGN_K", "9")
    settings = given_settings({"home": "shop", "event_column": "item"})
    assert (settings.home, settings.user_column, settings.event_column, settings.k) == (
        tmp_path / "shop",
        "ip_address",
        "item",
        5,
    )


def test_a_given_setting_that_cannot_be_used_is_named_by_its_field() -> None:
    with pytest.raises(SettingsError, match=r"^k: Input should be greater than or equal to 1$"):
        given_settings({"k": 0})
    with pytest.raises(SettingsError, match=r"^end_week=2024-01-01 comes before start_week=2024-01-08$"):
        given_settings({"start_week": "2024-01-08", "end_week": "2024-01-01"})


def test_the_readme_lists_every_setting_with_its_default() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for name, field in Settings.model_fields.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `TGN_{name.upper()}`"))
        assert field.default is None or f"`{field.default}`" in row


def test_every_destination_has_a_setting() -> None:
    assert {f"export_{name}" for name in DESTINATIONS} <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"TGN_SOURCE: log.csv", NO_VALUE),
        (b"TGN_SOURCE='log.csv", NO_VALUE),
        (b"TGN_SOURCE", NO_VALUE),
        (b"TGN_TIMESTAMP_COLUM=ts", "did you mean TGN_TIMESTAMP_COLUMN"),
        (b"TGN_K=3 # caf\xe9", r"\.env cannot be read as text in UTF-8"),
    ],
)
def test_a_line_of_env_that_cannot_be_used_is_an_error(tmp_path: Path, line: bytes, said: str) -> None:
    (tmp_path / ".env").write_bytes(b"# the log\n" + line + b"\n")
    with pytest.raises(SettingsError, match=said):
        read_settings()


def test_a_home_that_links_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="is a link that leads back to itself"):
        Settings(home=tmp_path / "a")
