"""Toy City: the built-in data set. One seeded 3D street world, seen by a camera; rendered, nothing downloaded."""

from hrnas.data.toycity.crops import ToyCityCrops
from hrnas.data.toycity.dataset import ToyCity
from hrnas.data.toycity.people import ToyCityPeople

__all__ = ["ToyCity", "ToyCityCrops", "ToyCityPeople"]
