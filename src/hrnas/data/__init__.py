"""Data sets, their description in data.yaml, transforms, loading, the data doctor and the built-in Toy City."""
