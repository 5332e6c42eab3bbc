"""Metrics over a whole set, each from exact counts."""
