"""Boxes in space: corners, overlaps, suppression of doubles."""
