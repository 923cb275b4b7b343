"""The weekly pipeline on a table in memory, without Dagster and without a home: `tgn_assets.Recommender`."""
