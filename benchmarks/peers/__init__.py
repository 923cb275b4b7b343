"""The peers, as scripts: each runs in its own environment, reads an .npz and writes one. None imports this project.

A ranker is given `user`, `item` (codes from 0) and `ts` (unix seconds) of all rows before `cut`, the Monday of the
target week, and answers with `lists`, five item codes for every user, and the `seconds` from these arrays to the lists.
"""
