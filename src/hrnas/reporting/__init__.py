"""What a run directory holds, as a page and as tables. Reads files only; no torch inside."""
