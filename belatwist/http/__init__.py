"""HTTP for every part that asks over it: bounded answers, trust, failures in words, a plain GET."""
