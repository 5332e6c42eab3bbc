"""Toy City: the built-in data set. One seeded 3D street world, seen by a camera; rendered, nothing downloaded."""

from hrnas.data.toycity.dataset import ToyCity

__all__ = ["ToyCity"]
