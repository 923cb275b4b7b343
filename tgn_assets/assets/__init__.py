"""The assets, each a function of its own: it reads its inputs, calls one or two functions of `ml`, and writes metadata.

They are defined without partitions, owner and code version, which `catalog.for_deployment` adds: the weeks depend on
the settings. `weekly_top5_predictions` alone is turned into an asset when the weeks are known, by
`recommendations.predictions_asset`: Dagster 1.13 does not hand an asset's partitions on to its check specs, and checks
must be recorded week by week. To add an asset, write its function in one of these modules; `definitions` finds it.
"""
