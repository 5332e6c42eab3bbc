"""Cost of a network: exact MACs and parameters from its architecture, and an independent count to check them."""
