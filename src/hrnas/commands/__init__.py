"""The verbs: one file each, a function from typed options to a result; the two loops (search, train) live here."""
