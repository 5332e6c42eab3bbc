"""Networks: backbone, heads, building them from an architecture, and weights that come from elsewhere."""
