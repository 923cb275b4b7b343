"""What a folder as a source must not leave out, or hold twice, without a word."""

import bz2
import gzip
from pathlib import Path

import pytest

from tgn_assets.ml.sources.extent import describe_source
from tgn_assets.ml.sources.spec import SourceError, SourceSpec

TEXT = "ip_address,event_id,timestamp\nann,tea,2024-01-01\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With one file."""
    (tmp_path / "jan.csv").write_text(TEXT)
    return tmp_path


def look(source: Path) -> str:
    """The first week of what is read."""
    return describe_source(SourceSpec(str(source))).first_week


def test_links_that_lead_to_no_file_are_an_error(folder: Path) -> None:
    (link := folder / "feb.csv").symlink_to(folder / "unmounted.csv")
    with pytest.raises(SourceError, match=r"feb\.csv is a link to a folder, which is not followed, or to nothing"):
        look(folder)
    link.unlink()
    link.symlink_to(folder.parent, target_is_directory=True)
    with pytest.raises(SourceError, match="mend the link, or remove it"):
        look(folder)
    link.unlink()
    link.symlink_to(folder / "jan.csv")
    assert look(folder) == "2024-01-01"


def test_a_file_that_is_there_compressed_as_well_is_an_error(folder: Path) -> None:
    (folder / "jan.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    with pytest.raises(SourceError, match=r"jan\.csv is there twice, the other time as .*jan\.csv\.gz: remove one"):
        look(folder)


def test_a_compression_that_is_not_read_is_an_error(folder: Path) -> None:
    (folder / "feb.csv.bz2").write_bytes(bz2.compress(TEXT.encode()))
    with pytest.raises(SourceError, match=r"feb\.csv\.bz2 is compressed by bzip2, which is not read: unpack it"):
        look(folder)


def test_names_of_columns_in_another_order_are_an_error(tmp_path: Path) -> None:
    (log := tmp_path / "log.csv").write_text(TEXT + TEXT)  # the same names again are a line that cannot be read
    assert look(log) == "2024-01-01"
    log.write_text(TEXT + "event_id,ip_address,timestamp\nrye,bob,2024-01-02\n")
    with pytest.raises(SourceError, match="columns' names in another order"):
        look(log)
