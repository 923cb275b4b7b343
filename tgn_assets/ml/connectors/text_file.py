"""Files that are replaced as a whole, and written to the disk for certain."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Makes `text` the content of the file `path`, and its folder if need be: a reader finds the old text or this one.

    Bytes that were read with `surrogateescape` stay what they were.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(text.encode(errors="surrogateescape"))
    fresh.replace(path)


def sync(*paths: Path) -> None:
    """Waits until these files and folders are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
