"""Architectures, search spaces and budgets as frozen data. No torch inside."""
