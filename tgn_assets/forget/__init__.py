"""`tgn forget`: takes ids out of every place of a home and its exports, and searches them for what is left."""
