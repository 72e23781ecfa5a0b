"""`python dev.py demo` and `serve`: short clips edited with the shipped templates on a real server."""
