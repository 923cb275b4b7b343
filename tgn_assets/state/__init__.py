"""`TGN_HOME`: warehouse, artifacts, locks, and the Dagster resources that hand them out."""
