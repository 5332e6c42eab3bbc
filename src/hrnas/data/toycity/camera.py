"""The camera: a pinhole that gives one ray a pixel, and a sensor that turns light into bytes."""

import math
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.toycity.world import View

_TILE: Final = 8


def pixel_rays(view: View, height: int, width: int) -> NDArray[np.float64]:
    """Return the unit direction in the world of the ray through each pixel's middle: (height, width, 3)."""
    return rays_through(view, np.arange(width) + 0.5, np.arange(height) + 0.5, height, width)


def rays_through(
    view: View, columns: NDArray[np.floating], rows: NDArray[np.floating], height: int, width: int
) -> NDArray[np.float64]:
    """Return the unit directions in the world of the rays through a grid of columns (c,) and rows (r,): (r, c, 3).

    Columns and rows as `project` gives them, of a picture of the height and width.
    """
    focal = width / 2 / math.tan(view.field_of_view / 2)  # pixels, for both axes
    column = (columns - width / 2) / focal
    row = (rows - height / 2) / focal
    cos, sin = math.cos(view.roll), math.sin(view.roll)
    right = column[None, :] * cos - row[:, None] * sin
    down = column[None, :] * sin + row[:, None] * cos
    cos_pitch, sin_pitch = math.cos(view.pitch), math.sin(view.pitch)
    ahead, up = cos_pitch + down * sin_pitch, sin_pitch - down * cos_pitch
    cos_yaw, sin_yaw = math.cos(view.heading), math.sin(view.heading)
    x, y = cos_yaw * ahead + sin_yaw * right, sin_yaw * ahead - cos_yaw * right
    rays: NDArray[np.float64] = np.stack([x, y, up], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return rays


def project(view: View, points: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return where points (..., 3) of the world lie in the picture: column, row and depth in metres, (..., 3).

    Columns and rows count from the left upper corner of the picture, whose first pixel has its middle at 0.5, 0.5. They
    mean nothing where the depth is not above 0: behind the camera.
    """
    focal = width / 2 / math.tan(view.field_of_view / 2)
    x, y, up = np.moveaxis(points - np.array(view.position), -1, 0)
    cos_yaw, sin_yaw = math.cos(view.heading), math.sin(view.heading)
    level, right = cos_yaw * x + sin_yaw * y, sin_yaw * x - cos_yaw * y
    cos_pitch, sin_pitch = math.cos(view.pitch), math.sin(view.pitch)
    depth, down = cos_pitch * level + sin_pitch * up, sin_pitch * level - cos_pitch * up
    cos, sin = math.cos(view.roll), math.sin(view.roll)
    with np.errstate(divide="ignore", invalid="ignore"):
        column = width / 2 + focal * (cos * right + sin * down) / depth
        row = height / 2 + focal * (cos * down - sin * right) / depth
    return np.stack([column, row, depth], axis=-1)


def tile_order(height: int, width: int) -> NDArray[np.int64]:
    """Return the flat indices of the pixels, (height * width,), tile by tile: neighbours together."""
    tile = np.arange(height)[:, None] // _TILE * width + np.arange(width) // _TILE
    return np.argsort(tile.reshape(-1), kind="stable")


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What the camera does to the light.

    exposure: the mean brightness it aims at, 0..1, linear. gains: of red and blue against green.
    contrast: exponent of the tone curve, 1 for the plain display curve. saturation: 1 leaves the colours as they are.
    blur: share of a pixel's light that its four neighbours get. noise: standard deviation at mid grey, linear.
    vignette: share of the light lost in the corners.
    """

    exposure: float
    gains: tuple[float, float]
    contrast: float
    saturation: float
    blur: float
    noise: float
    vignette: float


def make_sensor(random: Random) -> Sensor:
    """Draw a camera's settings."""
    return Sensor(
        exposure=random.uniform(0.18, 0.42),
        gains=(random.uniform(0.88, 1.14), random.uniform(0.86, 1.16)),
        contrast=random.uniform(1.0, 1.4),
        saturation=random.uniform(0.85, 1.5),
        blur=random.uniform(0.1, 0.45),
        noise=random.choice((0.005, 0.01, 0.018, 0.03)),
        vignette=random.uniform(0.0, 0.35),
    )


def develop(light: NDArray[np.float32], sensor: Sensor, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Turn linear light (H, W, 3) into an image, uint8 (H, W, 3)."""
    height, width = light.shape[:2]
    padded = np.pad(light, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    light = (1 - sensor.blur) * light + np.float32(sensor.blur / 4) * around
    light = light * np.array([sensor.gains[0], 1.0, sensor.gains[1]], np.float32)
    y = (np.arange(height, dtype=np.float32) - height / 2) / height
    x = (np.arange(width, dtype=np.float32) - width / 2) / width
    light *= (1 - sensor.vignette * 2 * (y[:, None] ** 2 + x[None, :] ** 2))[:, :, None]
    grey = light.mean(axis=2, keepdims=True)
    light = (grey + np.float32(sensor.saturation) * (light - grey)).astype(np.float32)
    light *= np.float32(sensor.exposure / max(float(light.mean()), 1e-6))
    # Shot noise grows with the root of the light; the floor stands for the reading noise.
    noise = generator.standard_normal(light.shape, dtype=np.float32)
    light += np.float32(2 * sensor.noise) * np.sqrt(np.maximum(light, 0) * np.float32(0.5) + np.float32(0.004)) * noise
    # A soft shoulder keeps the brightest parts from clipping to a flat white.
    bright = np.maximum(light, 0)
    shown = np.clip(1.25 * bright * (1 + bright / 4) / (1 + bright), 0, 1) ** np.float32(sensor.contrast / 2.2)
    image: NDArray[np.uint8] = (shown * 255 + 0.5).astype(np.uint8)
    return image
