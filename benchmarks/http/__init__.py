"""The measurements of HTTP: what they share is in `requests.py`, each of the others is one or two tables."""
