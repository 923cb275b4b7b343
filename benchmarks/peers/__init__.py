"""Other software to compare with, as scripts that import nothing of this project.

Each runs in its own environment, reads an .npz file and writes one. A ranker gets `user`, `item` (codes from 0) and
`ts` (unix seconds) of all rows before `cut`, the Monday of the target week. It answers with `lists`, five item codes
for every user, and the `seconds` from these arrays to the lists.
"""
