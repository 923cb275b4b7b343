"""The ranker (asset `trained_ranker`): training sets, network ensemble, LambdaRank, blend, calibration, fallback."""
