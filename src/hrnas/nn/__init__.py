"""Layers: convolutions, the lightweight transformer, the search block, the fusion and parallel modules."""
