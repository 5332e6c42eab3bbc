"""Camera and rendering: rays against angles, masks against boxes projected by hand, shadows where they must fall."""

import math
from random import Random

import numpy as np
import pytest

from hrnas.data.toycity.camera import Sensor, develop, pixel_rays, project, tile_order
from hrnas.data.toycity.render import render
from hrnas.data.toycity.street import Street
from hrnas.data.toycity.world import NAMES, Light, Thing, View, World


def view(**changes: float) -> View:
    start = {"heading": 0.0, "pitch": 0.0, "roll": 0.0, "field_of_view": math.pi / 2}
    return View(position=(0.0, 0.0, 1.5), **(start | changes))


def test_rays_of_a_level_camera():
    rays = pixel_rays(view(), 4, 8)  # a right angle of view over 8 pixels: the focal length is 4 pixels
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1)
    ratio = rays / rays[..., :1]
    # Column 0 is half a pixel in from the left edge: y is left, z is up.
    np.testing.assert_allclose(ratio[0, 0], [1, 3.5 / 4, 1.5 / 4])
    np.testing.assert_allclose(ratio[3, 7], [1, -3.5 / 4, -1.5 / 4])


def test_heading_turns_left_pitch_looks_up_roll_lowers_the_right():
    middle = pixel_rays(view(heading=0.3, pitch=0.2), 3, 3)[1, 1]
    expected = [math.cos(0.2) * math.cos(0.3), math.cos(0.2) * math.sin(0.3), math.sin(0.2)]
    np.testing.assert_allclose(middle, expected, atol=1e-12)
    rolled = pixel_rays(view(roll=0.1), 3, 3)
    assert rolled[1, 2, 2] < 0 < rolled[1, 0, 2]


def test_a_point_on_the_ray_of_a_pixel_projects_to_its_middle():
    eye = view(heading=0.7, pitch=-0.2, roll=0.15, field_of_view=1.1)
    rays = pixel_rays(eye, 9, 14)
    distance = np.random.default_rng(0).uniform(1, 50, (9, 14, 1))
    place = project(eye, np.array(eye.position) + distance * rays, 9, 14)
    np.testing.assert_allclose(place[..., 0], np.broadcast_to(np.arange(14) + 0.5, (9, 14)), atol=1e-9)
    np.testing.assert_allclose(place[..., 1], np.broadcast_to(np.arange(9)[:, None] + 0.5, (9, 14)), atol=1e-9)
    ahead = np.array([math.cos(0.7) * math.cos(0.2), math.sin(0.7) * math.cos(0.2), -math.sin(0.2)])
    np.testing.assert_allclose(place[..., 2], (distance * rays) @ ahead, atol=1e-9)
    assert project(eye, np.array(eye.position) - ahead, 9, 14)[2] == pytest.approx(-1)


@pytest.mark.parametrize("size", [(96, 128), (17, 30), (1, 1)])
def test_tile_order_has_each_pixel_once_and_neighbours_together(size):
    order = tile_order(*size)
    assert sorted(order.tolist()) == list(range(size[0] * size[1]))
    if size == (96, 128):
        rows, columns = order[:64] // 128, order[:64] % 128
        assert rows.max() == columns.max() == 7


def test_exposure_is_met_and_noise_grows_with_its_setting():
    plain = Sensor(exposure=0.2, gains=(1.0, 1.0), contrast=1.0, saturation=1.0, blur=0.0, noise=0.0, vignette=0.0)
    light = np.full((16, 16, 3), 7.0, np.float32)
    still = develop(light, plain, np.random.default_rng(0))
    # 0.2 after the shoulder is 1.25 * 0.2 * 1.05 / 1.2, then the display curve.
    assert np.unique(still).tolist() == [round(255 * (1.25 * 0.2 * 1.05 / 1.2) ** (1 / 2.2))]
    spreads = []
    for noise in (0.005, 0.02):
        sensor = Sensor(
            exposure=0.2, gains=(1.0, 1.0), contrast=1.0, saturation=1.0, blur=0.0, noise=noise, vignette=0.0
        )
        spreads.append(develop(light, sensor, np.random.default_rng(0)).std())
    assert 0 < spreads[0] < spreads[1]


def world(*things: Thing, sun: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> World:
    return World(
        street=Street(
            radius=1e5, half_width=40.0, pavement_width=2.0, crossing=0.0, crossing_half_width=0.0, centre_line="none",
            edge_lines=False, zebra=False,
        ),
        things=things,
        light=Light(
            sun=sun, sun_colour=(1.0, 1.0, 1.0), sky_colour=(0.1, 0.1, 0.1), zenith=(0.2, 0.3, 0.6),
            horizon=(0.6, 0.7, 0.8), clouds=0.0, haze=1e6,
        ),
        view=view(), grass=(0.1, 0.2, 0.1), asphalt=(0.2, 0.2, 0.2), seed=1,
    )  # fmt: skip


def wall(x: float, y: float, length: float, height: float) -> Thing:
    """A garden wall of 0.2 m thickness across the view."""
    return Thing(
        category="building", kind="wall", position=(x, y), heading=math.pi / 2, size=(length, 0.2, height),
        colours=((0.5, 0.5, 0.5),), seed=1,
    )  # fmt: skip


def post(x: float, y: float) -> Thing:
    return Thing(
        category="pole", kind="mast", position=(x, y), heading=0.0, size=(0.2, 0.2, 6.0), colours=((0.3,) * 3,) * 2,
        seed=0,
    )  # fmt: skip


def test_a_wall_covers_the_pixels_it_projects_to():
    # Its face is 10 m off, 4 m wide and 2.5 m high: with a focal length of 64 pixels, columns 64 +- 12.8 and rows from
    # 48 - 6.4 down to 48 + 9.6. A pixel belongs to it when its middle does.
    mask = render(world(wall(10.1, 0.0, 4.0, 2.5)), 96, 128, Random(0)).mask
    expected = np.full((96, 128), NAMES.index("sky"), np.uint8)
    expected[48:] = NAMES.index("road")
    expected[42:58, 51:77] = NAMES.index("building")
    differs = mask != expected
    # Far off, the street's pavement and the grass beside it make a few rows below the horizon.
    assert not differs[:48].any()
    assert not differs[52:].any()
    assert not differs[42:58, 51:77].any()


def test_the_nearer_thing_hides_the_farther():
    pole = NAMES.index("pole")
    before = render(world(wall(10.1, 0.0, 4.0, 2.5), post(5.0, 0.0)), 96, 128, Random(0)).mask
    behind = render(world(wall(10.1, 0.0, 4.0, 2.5), post(15.0, 0.0)), 96, 128, Random(0)).mask
    assert (before[42:58, 63:65] == pole).all()
    assert not (behind[42:58, 51:77] == pole).any()
    assert (behind[36:41, 63:65] == pole).all()  # its upper part looks over the wall


def test_a_wall_throws_its_shadow_away_from_the_sun():
    # The sun stands at 45 degrees to the left: a wall along the view at y = 3, 2 m high, darkens the road from 3 to 1.
    along = Thing(
        category="building", kind="wall", position=(12.0, 3.0), heading=0.0, size=(16.0, 0.2, 2.0),
        colours=((0.5, 0.5, 0.5),), seed=1,
    )  # fmt: skip
    sun = (0.0, math.sqrt(0.5), math.sqrt(0.5))
    picture = render(world(along, sun=sun), 96, 128, Random(1))
    image, mask = picture.image, picture.mask
    row = 48 + 9  # the middle of row 57 looks at the road 1.5 * 64 / 9.5 = 10.1 m off; 1 m there is 6.3 pixels
    assert (mask[row, 55:75] == NAMES.index("road")).all()
    shaded = image[row, 64 - int(6.3 * 2.6) : 64 - int(6.3 * 1.3)].mean()
    lit = image[row, 64 - int(6.3 * 0.6) : 64 + 20].mean()
    assert shaded < 0.6 * lit
