"""KITTI's average precision in hand-worked cases.

With N <= 40 objects each score serves the recall positions k / 40 up to what it reaches: of two objects the first found
serves positions 0 to 20, the second 21 to 40. So R40 is the mean over the objects of the precision at each, best first.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from hrnas.metrics.kitti import MEASURES, KittiAP, Measure, kitti_ap
from hrnas.structures import DIFFICULTIES, BoxClass, KittiObjects

CAR = BoxClass(name="Car", size=(4, 2, 1.5), z=-1, overlap=0.7, neighbours=("Van",))
PEDESTRIAN = BoxClass(name="Pedestrian", size=(1, 1, 2), z=-0.7, overlap=0.5, neighbours=("Person_sitting",))
CYCLIST = BoxClass(name="Cyclist", size=(2, 1, 2), z=-0.7, overlap=0.5)
BOXES: tuple[Measure, ...] = ("2d", "bev", "3d")
NAMES = tuple(difficulty.name for difficulty in DIFFICULTIES)


def thing(
    place: float = 0,
    name: str = "Car",
    *,
    score: float = 1,
    left: float = 0,
    top: float = 50,
    width: float = 100,
    height: float = 60,
    occluded: int = 0,
    truncated: float = 0,
    alpha: float = 0.3,
    size: tuple[float, float, float] = (2, 2, 4),
    ahead: float = 0,
    y: float = 1.6,
    z: float = 20,
    rotation: float = 0,
) -> KittiObjects:
    """Return one object; those of two places share nothing.

    left, ahead: how much the box lies to the right in the image, and along x in space, of the usual one.
    """
    corner = 200 * place + left
    return KittiObjects(
        types=(name,),
        truncated=np.array([truncated], np.float64),
        occluded=np.array([occluded]),
        alphas=np.array([alpha], np.float64),
        boxes_2d=np.array([[corner, top, corner + width, top + height]], np.float64),
        sizes=np.array([size], np.float64),
        locations=np.array([[10 * place + ahead, y, z]], np.float64),
        rotations=np.array([rotation], np.float64),
        scores=np.array([score], np.float64),
    )


def nearby(share: float, score: float, place: float = 0, name: str = "Car", alpha: float = 0.3) -> KittiObjects:
    """Return a detection that, in every measure, overlaps the usual thing of that place by `share`."""
    off = (1 - share) / (1 + share)
    return thing(place, name, score=score, left=100 * off, ahead=4 * off, alpha=alpha)


def dont_care(left: float, width: float, top: float = 50) -> KittiObjects:
    return thing(
        0, "DontCare", left=left, width=width, top=top, occluded=-1, truncated=-1, alpha=-10,
        size=(-1, -1, -1), ahead=-1000, y=-1000, z=-1000, rotation=-10,
    )  # fmt: skip


def frame(*things: KittiObjects) -> KittiObjects:
    """Return the things as the objects of one frame."""
    if not things:
        empty = frame(thing())
        return KittiObjects(types=(), **{name: value[:0] for name, value in vars(empty).items() if name != "types"})
    return KittiObjects(
        types=tuple(name for one in things for name in one.types),
        **{name: np.concatenate([getattr(one, name) for one in things]) for name in vars(things[0]) if name != "types"},
    )


def scored(truth: KittiObjects, found: KittiObjects, *classes: BoxClass) -> KittiAP:
    return kitti_ap([truth], [found], classes or (CAR,))


def r40(ap: KittiAP, measure: Measure, difficulty: str = "easy", class_name: str = "Car") -> float:
    return ap.value(measure, class_name, difficulty, 40)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 11, 39, 40, 41, 42, 63, 80, 150])
def test_perfect_detections_have_exactly_one(number: int, tied: bool) -> None:
    """In all measures and difficulties, whatever else is labelled, spread over frames."""
    rng = np.random.default_rng(number)
    truths, found = [], []
    for _ in range(number):
        things = [thing(0, alpha=2), thing(1, "Pedestrian"), thing(2, "Cyclist"), thing(3, occluded=1), thing(4, "Van")]
        things += [thing(5, truncated=0.4, rotation=0.7), thing(6, height=30), thing(7, "Tram"), thing(8, height=20)]
        labelled = frame(*(things[place] for place in rng.permutation(len(things))), dont_care(3000, 500))
        truths.append(labelled)
        scores = np.full(len(labelled), 0.5) if tied else rng.random(len(labelled))
        found.append(replace(labelled, alphas=np.maximum(labelled.alphas, -9), scores=scores))
    ap = kitti_ap(truths, found, (CAR, PEDESTRIAN, CYCLIST))
    assert ap.class_names == ("Car", "Pedestrian", "Cyclist")
    assert (ap.precisions == 1.0).all()
    assert ap.objects.tolist() == [[number, 3 * number, 4 * number], [number] * 3, [number] * 3]
    for measure in MEASURES:
        for difficulty in NAMES:
            assert ap.value(measure, "Car", difficulty, 40) == ap.value(measure, "Car", difficulty, 11) == 1.0


@pytest.mark.parametrize(
    ("found", "number", "positions"),
    [
        (1, 2, 21),
        (20, 40, 21),
        (39, 40, 40),
        # From 41 on a score serves one position.
        (40, 41, 40),
        # After 12 scores one is passed over now and then: position k takes score ceil(1.125 k - 1.5).
        (30, 45, 28),
        # Position k takes the score that reaches it, number 2k - 1.
        (40, 80, 21),
        (3, 80, 3),
        # The last takes the next position, however far it is from it.
        (2, 200, 2),
        (3, 200, 2),
    ],
)
@pytest.mark.parametrize("measure", MEASURES)
def test_a_share_of_the_objects_reaches_as_many_recall_positions(
    measure: Measure, found: int, number: int, positions: int
) -> None:
    ap = kitti_ap(
        [frame(thing())] * number,
        [frame(thing(score=1 - place / 1000)) for place in range(found)] + [frame()] * (number - found),
        [CAR],
    )
    assert r40(ap, measure) == pytest.approx((positions - 1) / 40, abs=1e-15)
    assert ap.value(measure, "Car", "easy", 11) == pytest.approx(math.ceil(positions / 4) / 11, abs=1e-15)


def test_precision_is_the_best_at_a_position_or_behind() -> None:
    truth = frame(thing(0), thing(1))
    ap = scored(truth, frame(thing(0, score=0.9), thing(5, score=0.8), thing(1, score=0.7)))
    for measure in BOXES:
        assert r40(ap, measure) == pytest.approx((1 + 2 / 3) / 2)
        assert ap.value(measure, "Car", "easy", 11) == pytest.approx((6 + 5 * 2 / 3) / 11)
    ap = scored(truth, frame(thing(0, score=0.9), thing(5, score=0.95), thing(1, score=0.7)))
    for measure in BOXES:
        assert ap.precisions[MEASURES.index(measure), 0, 0].tolist() == [2 / 3] * 41


def test_a_false_one_below_the_last_score_found_costs_nothing() -> None:
    ap = scored(frame(thing(0)), frame(thing(0, score=0.5), thing(1, score=0.4)))
    assert [r40(ap, measure) for measure in MEASURES] == [1] * 4
    ap = scored(frame(thing(0)), frame(thing(0, score=0.5), thing(1, score=0.5)))
    assert [r40(ap, measure) for measure in MEASURES] == [0.5] * 4


def test_an_object_found_twice_is_one_right_and_one_false() -> None:
    truth = frame(thing(0), thing(1))
    ap = scored(truth, frame(thing(0, score=0.9), thing(0, score=0.8), thing(1, score=0.5)))
    assert [r40(ap, measure) for measure in MEASURES] == pytest.approx([(1 + 2 / 3) / 2] * 4)


def test_thresholds_come_from_the_best_scores_and_the_rest_from_the_greatest_overlaps() -> None:
    truth = frame(thing(0), thing(1))
    opposite = 0.3 + math.pi
    better, worse = nearby(1, 0.8), nearby(0.8, 0.9, alpha=opposite)
    for first, second in ((better, worse), (worse, better)):
        ap = scored(truth, frame(first, second, thing(1, score=0.5)))
        # At 0.9 only the worse one is there, right, its orientation wrong; at 0.5 it is false.
        assert [r40(ap, measure) for measure in BOXES] == pytest.approx([(1 + 2 / 3) / 2] * 3)
        assert r40(ap, "aos") == pytest.approx(2 / 3)


def test_of_equal_scores_and_overlaps_the_first_is_taken() -> None:
    truth = frame(thing(0), thing(1))
    right, opposite = thing(score=0.9), thing(score=0.9, alpha=0.3 + math.pi)
    for first, second, similarity in ((right, opposite, 1.0), (opposite, right, 0.0)):
        ap = scored(truth, frame(first, second, thing(1, score=0.5)))
        assert [r40(ap, measure) for measure in BOXES] == pytest.approx([2 / 3] * 3)
        assert r40(ap, "aos") == pytest.approx((1 + similarity) / 3)

    # The first pass: of equal scores the first goes to the first object though its overlap is less; then nothing of
    # what is left meets the second.
    both, one = nearby(0.75, 0.9), nearby(1, 0.9)
    two = frame(thing(0), nearby(0.6, 1))  # `both` overlaps either, `one` only the first
    ap = scored(two, frame(both, one))
    assert [r40(ap, measure) for measure in BOXES] == pytest.approx([0.5] * 3)
    ap = scored(two, frame(one, both))
    assert [r40(ap, measure) for measure in BOXES] == [1] * 3


def test_objects_choose_in_the_order_of_the_file() -> None:
    first, second = thing(0), thing(0, left=15, ahead=0.6)
    found = frame(thing(0, left=10, ahead=0.4, score=0.9), thing(0, left=-16, ahead=-0.64, score=0.8))
    # The first detection is the best of both objects, the other is near enough to the first object alone.
    ap = scored(frame(first, second), found)
    assert [r40(ap, measure) for measure in BOXES] == [0.5] * 3
    ap = scored(frame(second, first), found)
    assert [r40(ap, measure) for measure in BOXES] == [1] * 3


def test_the_overlap_must_be_above_the_limit() -> None:
    for share, value in ((0.75, 1), (0.65, 0)):
        assert [r40(scored(frame(thing()), frame(nearby(share, 1))), measure) for measure in MEASURES] == [value] * 4
    truth = frame(thing(0), thing(1, "Pedestrian"))
    for width, values in ((0, [0, 0]), (0.01, [1, 1])):
        found = frame(thing(0, width=70 + width), thing(1, "Pedestrian", width=50 + width))
        ap = scored(truth, found, CAR, PEDESTRIAN)
        assert [r40(ap, "2d", class_name=name) for name in ap.class_names] == values


def test_boxes_in_space() -> None:
    def found(**changes: float | tuple[float, float, float]) -> list[float]:
        label = thing(size=(2, 1.6, 4), rotation=math.pi / 4, y=0)
        detected = thing(**{"size": (2, 1.6, 4), "rotation": math.pi / 4, "y": 0.0, **changes})  # type: ignore[arg-type]
        ap = scored(frame(label), frame(detected))
        return [r40(ap, measure) for measure in BOXES]

    assert found() == [1, 1, 1]
    # Its length lies along x and towards the camera: 0.5 m along it leave 3.5 / 4.5, across it 1.1 / 2.1.
    step = 0.5 / math.sqrt(2)
    assert found(ahead=step, z=20 - step) == [1, 1, 1]
    assert found(ahead=step, z=20 + step) == [1, 0, 0]
    assert found(rotation=math.pi / 4 + math.pi) == [1, 1, 1]
    assert found(rotation=-math.pi / 4) == [1, 0, 0]
    # The place is that of the bottom, and y points down: from -2 to 0 and from -2 to -0.4 overlap by 0.8.
    assert found(size=(1.6, 1.6, 4), y=-0.4) == [1, 1, 1]
    assert found(size=(1.6, 1.6, 4), y=0.4) == [1, 1, 0]
    assert found(y=-2.0) == [1, 1, 0]
    # Without a box in space only the image counts.
    assert found(size=(-1.6, -1.6, -4)) == [1, 0, 0]
    assert found(size=(-1, -1, -1), ahead=-1000, y=-1000, z=-1000) == [1, 0, 0]


LIMITS = [
    ({"occluded": 0}, (1, 1, 1)),
    ({"occluded": 1}, (0, 1, 1)),
    ({"occluded": 2}, (0, 0, 1)),
    ({"occluded": 3}, (0, 0, 0)),
    ({"occluded": -1, "truncated": -1.0}, (1, 1, 1)),
    ({"truncated": 0.15}, (1, 1, 1)),
    ({"truncated": 0.16}, (0, 1, 1)),
    ({"truncated": 0.3}, (0, 1, 1)),
    ({"truncated": 0.31}, (0, 0, 1)),
    ({"truncated": 0.5}, (0, 0, 1)),
    ({"truncated": 0.51}, (0, 0, 0)),
    ({"height": 40.01}, (1, 1, 1)),
    ({"height": 40.0}, (0, 1, 1)),
    ({"height": 25.01}, (0, 1, 1)),
    ({"height": 25.0}, (0, 0, 0)),
]


@pytest.mark.parametrize(("changes", "counts"), LIMITS)
def test_an_object_over_a_limit_is_ignored(changes: dict[str, float], counts: tuple[int, int, int]) -> None:
    """Whether it is found, with a better score than the other, or not."""
    limited = thing(1, **changes)  # type: ignore[arg-type]
    truth = frame(thing(0), limited)
    both = scored(truth, frame(thing(0, score=0.5), replace(limited, scores=np.array([0.9]))))
    other = scored(truth, frame(thing(0, score=0.5)))
    assert both.objects.tolist() == [[1 + count for count in counts]]
    for difficulty, count in zip(NAMES, counts, strict=True):
        assert [r40(both, measure, difficulty) for measure in MEASURES] == [1] * 4
        assert [r40(other, measure, difficulty) for measure in MEASURES] == [0.5 if count else 1] * 4


def test_an_ignored_object_takes_one_detection_only() -> None:
    truth = frame(thing(0), thing(1, occluded=1))
    ap = scored(truth, frame(thing(0, score=0.5), nearby(0.9, 0.6, 1), nearby(0.8, 0.7, 1)))
    assert [r40(ap, measure) for measure in BOXES] == [0.5] * 3


@pytest.mark.parametrize(("height", "values"), [(39.9, (1, 0.5, 0.5)), (40, (0.5,) * 3), (24.9, (1,) * 3)])
def test_a_low_detection_is_not_false(height: float, values: tuple[float, ...]) -> None:
    ap = scored(frame(thing(0)), frame(thing(0, score=0.5), thing(1, height=height, score=0.9)))
    for measure in BOXES:
        assert [r40(ap, measure, difficulty) for difficulty in NAMES] == list(values)


def test_a_low_detection_is_assigned_where_there_is_no_other() -> None:
    truth = frame(thing(0, height=48), thing(1))
    low = thing(0, height=39, score=0.8)  # overlaps by 0.81; the other one by less
    usual = thing(0, height=48, left=12, ahead=0.48, score=0.9)
    for first, second in ((low, usual), (usual, low)):
        ap = scored(truth, frame(first, second, thing(1, score=0.5)))
        assert [r40(ap, measure) for measure in BOXES] == [1] * 3
    # It alone finds nothing, not even a position of recall.
    ap = scored(truth, frame(low, thing(1, score=0.5), thing(5, score=0.6)))
    assert [r40(ap, measure, "easy") for measure in MEASURES] == [0.25] * 4
    assert [r40(ap, measure, "moderate") for measure in MEASURES] == pytest.approx([(1 + 2 / 3) / 2] * 4)


def test_a_low_detection_of_another_class_may_take_an_object() -> None:
    """As the development kit has it: the height is asked for before the type."""
    truth = frame(thing(0, height=48))
    other = thing(0, "Pedestrian", height=39, score=0.9)
    ap = scored(truth, frame(other, thing(0, height=48, score=0.8)))
    assert [r40(ap, measure, "easy") for measure in BOXES] == [0] * 3
    assert [r40(ap, measure, "moderate") for measure in BOXES] == [1] * 3
    weaker = replace(other, scores=np.array([0.7]))
    ap = scored(truth, frame(weaker, thing(0, height=48, score=0.8)))
    assert [r40(ap, measure, "easy") for measure in BOXES] == [1] * 3


def test_neighbouring_classes_are_ignored_whatever_the_case_of_their_names() -> None:
    truth = frame(thing(0, "car"), thing(1, "VAN"), thing(2, "Person_Sitting"), thing(3, "pedestrian"))
    found = frame(
        thing(0, "CAR", score=0.5),
        thing(1, "Car", score=0.9),
        thing(2, "Pedestrian", score=0.9),
        thing(3, "PEDESTRIAN", score=0.5),
        thing(8, "Van", score=0.99),
    )
    ap = scored(truth, found, CAR, PEDESTRIAN)
    alone = scored(truth, found, replace(CAR, neighbours=()), replace(PEDESTRIAN, neighbours=()))
    for measure in MEASURES:
        for name in ("Car", "Pedestrian"):
            assert r40(ap, measure, class_name=name) == 1
            assert r40(alone, measure, class_name=name) == 0.5
    assert ap.objects.tolist() == [[1] * 3] * 2
    missed = scored(truth, frame(thing(0, score=0.5)))
    assert [r40(missed, measure) for measure in MEASURES] == [1] * 4


def test_another_class_is_neither_ignored_nor_found() -> None:
    ap = scored(frame(thing(0), thing(1, "Tram")), frame(thing(0, score=0.5), thing(1, score=0.9)))
    assert [r40(ap, measure) for measure in MEASURES] == [0.5] * 4
    ap = scored(frame(thing(0)), frame(thing(0, score=0.5), thing(0, "Tram", score=0.9), thing(1, "Tram", score=0.9)))
    assert [r40(ap, measure) for measure in MEASURES] == [1] * 4


@pytest.mark.parametrize(
    ("areas", "free"),
    [
        ([(1000, 100)], True),
        ([(600, 2000)], True),  # a large area: little over the union, all of the detection
        ([(1029, 200)], True),
        ([(1031, 200)], False),
        ([(900, 150), (1050, 150)], False),  # two halves are not added up
        ([(900, 165), (600, 500)], True),
        ([(3000, 100)], False),
    ],
)
def test_dont_care_areas_free_detections_in_the_image_alone(areas: list[tuple[float, float]], free: bool) -> None:
    truth = frame(thing(0), *(dont_care(left, width) for left, width in areas))
    ap = scored(truth, frame(thing(0, score=0.5), thing(5, score=0.9)))
    value = 1 if free else 0.5
    assert [r40(ap, measure) for measure in MEASURES] == [value, value, 0.5, 0.5]


def test_a_dont_care_area_covers_more_than_the_limit_and_takes_nothing_right() -> None:
    found = frame(thing(0, "Pedestrian", score=0.5), thing(5, "Pedestrian", score=0.9))
    for width, value in ((50, 0.5), (50.1, 1)):
        truth = frame(thing(0, "Pedestrian"), dont_care(1000, width), dont_care(0, 100))
        ap = scored(truth, found, PEDESTRIAN)
        assert ap.value("2d", "Pedestrian", "easy", 40) == value
    # Apart in both directions.
    ap = scored(frame(thing(0), dont_care(700, 100, top=-50)), frame(thing(0, score=0.5), thing(5, score=0.9)))
    assert r40(ap, "2d") == 0.5
    # Areas of other frames free nothing.
    ap = kitti_ap([frame(thing(0)), frame(dont_care(1000, 100))], [frame(thing(0), thing(5)), frame()], [CAR])
    assert r40(ap, "2d") == 0.5


def test_orientation() -> None:
    truth = frame(thing(0, alpha=0.3))
    for turn, value in ((0, 1), (math.pi / 2, 0.5), (-math.pi / 2, 0.5), (math.pi, 0), (2 * math.pi, 1)):
        ap = scored(truth, frame(thing(0, alpha=0.3 + turn, score=0.5)))
        assert r40(ap, "aos") == pytest.approx(value, abs=1e-15)
        ap = scored(truth, frame(thing(0, alpha=0.3 + turn, score=0.5), thing(1, score=0.9)))
        assert r40(ap, "aos") == pytest.approx(value / 2, abs=1e-15)
        assert [r40(ap, measure) for measure in BOXES] == [0.5] * 3
    # The assignment is that of the image: what is found in space alone does not count.
    ap = scored(truth, frame(thing(0, left=500)))
    assert [r40(ap, measure) for measure in MEASURES] == [0, 0, 1, 1]


def test_one_detection_of_unknown_orientation_ends_aos() -> None:
    truth = frame(thing(0), thing(1, "Pedestrian"))
    found = frame(thing(0), thing(1, "Pedestrian", alpha=-10))
    ap = kitti_ap([truth, truth], [found, frame(thing(0))], (CAR, PEDESTRIAN))
    assert np.isnan(ap.precisions[MEASURES.index("aos")]).all()
    assert not np.isnan(ap.precisions[[MEASURES.index(measure) for measure in BOXES]]).any()


def test_a_counted_object_of_unknown_orientation_ends_the_aos_of_its_class() -> None:
    truth = frame(thing(0), thing(1, "Pedestrian"), thing(2, occluded=1, alpha=-10))
    ap = scored(truth, frame(thing(0), thing(1, "Pedestrian")), CAR, PEDESTRIAN)
    assert r40(ap, "aos", "easy") == 1
    assert math.isnan(r40(ap, "aos", "moderate"))
    assert [r40(ap, "aos", difficulty, "Pedestrian") for difficulty in NAMES] == [1] * 3


def test_without_objects_there_is_no_figure_and_without_detections_it_is_zero() -> None:
    nothing = kitti_ap([], [], (CAR, PEDESTRIAN))
    assert nothing.precisions.shape == (4, 2, 3, 41)
    assert np.isnan(nothing.precisions).all()
    empty = scored(frame(), frame(thing(0)), CAR)
    assert np.isnan(empty.precisions).all()
    ap = scored(frame(thing(0, occluded=1)), frame(), CAR, PEDESTRIAN)
    for measure in MEASURES:
        assert math.isnan(r40(ap, measure, "easy"))
        assert [ap.value(measure, "Car", difficulty, 11) for difficulty in NAMES[1:]] == [0, 0]
        assert math.isnan(r40(ap, measure, "hard", "Pedestrian"))
    ap = scored(frame(thing(0)), frame(thing(0, "Pedestrian")))
    assert [r40(ap, measure) for measure in MEASURES] == [0] * 4


def test_precision_is_zero_where_nothing_is_left() -> None:
    """The second pass may find less than the first: an ignored object takes the detection that overlaps it most."""
    ignored, counted, near = thing(0, occluded=1), nearby(0.75, 1), nearby(0.95, 0.8)
    away = thing(0, left=-17, ahead=-0.68, score=0.9)
    truth = frame(ignored, counted, dont_care(-300, 400))
    ap = scored(truth, frame(away, near))
    # First pass: the ignored object takes `away` (0.9), the counted one `near` (0.8). Second, at 0.8: the ignored one
    # takes `near`, `away` lies in the DontCare area, and nothing is right or false in the image.
    assert r40(ap, "2d") == r40(ap, "aos") == 0
    assert r40(ap, "bev") == r40(ap, "3d") == 0


def test_frames_are_apart() -> None:
    ap = kitti_ap([frame(thing(0)), frame(thing(1))], [frame(thing(1)), frame(thing(0))], [CAR])
    assert [r40(ap, measure) for measure in MEASURES] == [0] * 4
    ap = kitti_ap([frame(thing(0)), frame(), frame(thing(1))], [frame(thing(0)), frame(), frame(thing(1))], [CAR])
    assert [r40(ap, measure) for measure in MEASURES] == [1] * 4
