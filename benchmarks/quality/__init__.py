"""How good the lists are, beside peers and with parts left out."""
