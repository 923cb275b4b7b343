"""The weekly report: one HTML page about a week, for people. (`tgn_assets.report` is what a terminal prints.)"""
