"""The recipes of the paper's sets: their steps, rates and views are those of its table (method: Training, per task)."""

from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import hrnas
from hrnas.data.class_views import CLASSIFICATION
from hrnas.data.scene_views import SCENES
from hrnas.data.transforms import SEGMENTATION, AugmentOptions
from hrnas.engine.optimization import OptimizerOptions, learning_rate, make_optimizer

IMAGES = {"cityscapes": 2975, "ade20k": 20_210, "imagenet": 1_281_167, "coco": 149_813, "kitti": 3712}
"""Of the training split; of coco, persons with joints."""


def recipe(name: str) -> dict[str, Any]:
    folder = Path(hrnas.__file__).with_name("recipes")
    return yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "kind", "epochs", "batch", "decay", "rates"),
    [
        ("cityscapes", torch.optim.AdamW, 430, 32, 1e-5, {0: 0.04 / 25, 43: 0.04, 429.99: 0.04 / 25 / 1e4}),
        ("ade20k", torch.optim.AdamW, 200, 64, 1e-5, {0: 0.04 / 25, 20: 0.04, 199.99: 0.04 / 25 / 1e4}),
        (
            "imagenet", torch.optim.RMSprop, 350, 256, 1e-5,
            {5.01: 0.016 * 0.97**2, 23.99: 0.016 * 0.97**9, 24.01: 0.016 * 0.97**10, 349.99: 0.016 * 0.97**145},
        ),
        (
            "coco", torch.optim.Adam, 210, 384, 1e-8,
            {0: 1e-3, 169.99: 1e-3, 170.01: 1e-4, 199.99: 1e-4, 200.01: 1e-5, 209.99: 1e-5},
        ),
        ("kitti", torch.optim.AdamW, 80, 16, 1e-2, {0: 0.003 / 10, 32: 0.003, 79.999: 0.003 / 10 / 1e4}),
    ],
)  # fmt: skip
def test_epochs_rates_and_optimizer(
    name: str, kind: type, epochs: int, batch: int, decay: float, rates: dict[float, float]
) -> None:
    values = recipe(name)
    assert values["batch_size"] == batch
    assert values["steps"] == ceil(epochs * IMAGES[name] / batch)
    options = OptimizerOptions(**values["optimizer"])
    optimizer = make_optimizer(torch.nn.Linear(2, 2, bias=False), options)
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [decay]
    for epoch, expected in rates.items():
        step = int(epoch * IMAGES[name] / batch)
        found = learning_rate(options, step=step, steps=values["steps"], batch_size=batch)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-7), epoch


def test_rmsprop_is_the_papers() -> None:
    options = OptimizerOptions(**recipe("imagenet")["optimizer"])
    assert {name: options.value(name) for name in ("alpha", "momentum", "eps")} == {
        "alpha": 0.9, "momentum": 0.9, "eps": 1e-3,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["kitti", "detection3d", "toycity-detection3d"])
def test_adamw_of_boxes_forgets_early_gradients(name: str) -> None:
    options = OptimizerOptions(**recipe(name)["optimizer"])
    assert make_optimizer(torch.nn.Linear(2, 2), options).defaults["betas"] == (0.9, 0.99)


@pytest.mark.parametrize(
    ("name", "used"),
    [("cityscapes", SEGMENTATION), ("ade20k", SEGMENTATION), ("imagenet", CLASSIFICATION), ("kitti", SCENES)],
)
def test_a_recipe_asks_for_views_that_its_task_has(name: str, used: dict[str, Any]) -> None:
    given = recipe(name)["augment"]
    AugmentOptions(**given)
    assert set(given) <= set(used)
