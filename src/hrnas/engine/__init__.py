"""Training state and step, evaluation of averaged weights, checkpoints and records. Knows no task and no search."""
