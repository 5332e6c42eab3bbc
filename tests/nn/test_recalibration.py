"""Recalibration against averages computed by hand; modes and momentum come back whatever happens."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from hrnas.arch.architecture import Block
from hrnas.arch.presets import search_space
from hrnas.nn.conv import EmptyNorm
from hrnas.nn.recalibration import recalibrate
from hrnas.nn.search_block import SearchBlock


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm2d(3, momentum=0.01)
    ).double()
    with torch.no_grad():
        for norm in (model[1], model[3]):
            norm.weight.normal_()
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(1, 2)
    return model


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((4, 2, 7, 6), (4, 2, 7, 6), (2, 2, 5, 9))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1 for shape in shapes]


@torch.no_grad()
def test_statistics_are_plain_averages_over_the_batches() -> None:
    model = small_model()
    means: list[list[Tensor]] = [[], []]
    variances: list[list[Tensor]] = [[], []]
    for batch in batches():
        x = model[0](batch)
        for index, norm in enumerate((model[1], model[3])):
            mean = x.mean(dim=(0, 2, 3))
            count = x.shape[0] * x.shape[2] * x.shape[3]
            biased = ((x - mean[:, None, None]) ** 2).mean(dim=(0, 2, 3))
            means[index].append(mean)
            variances[index].append(biased * count / (count - 1))
            x = (x - mean[:, None, None]) / (biased[:, None, None] + norm.eps).sqrt()
            x = x * norm.weight[:, None, None] + norm.bias[:, None, None]  # and no dropout between the two
    recalibrate(model, batches())
    for index, norm in enumerate((model[1], model[3])):
        torch.testing.assert_close(norm.running_mean, torch.stack(means[index]).mean(0))
        torch.testing.assert_close(norm.running_var, torch.stack(variances[index]).mean(0))
        assert int(norm.num_batches_tracked) == 3


@pytest.mark.parametrize("is_training", [True, False])
def test_modes_momentum_and_weights_stay(is_training: bool) -> None:
    model = small_model().train(is_training)
    model[3].train(not is_training)
    modes = [module.training for module in model.modules()]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    rng = torch.get_rng_state()
    recalibrate(model, batches())
    assert [module.training for module in model.modules()] == modes
    assert (model[1].momentum, model[3].momentum) == (0.3, 0.01)
    assert all(torch.equal(new, old) for new, old in zip(model.parameters(), weights, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng), "dropout drew random numbers"


def test_modes_and_momentum_come_back_after_an_exception() -> None:
    model = small_model().train()
    model[1].eval()

    def failing() -> Iterator[Tensor]:
        yield batches()[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        recalibrate(model, failing())
    assert [module.training for module in model] == [True, False, True, True]
    assert (model[1].momentum, model[3].momentum) == (0.3, 0.01)


def test_without_batches_the_statistics_stay() -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recalibrate(model, [])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_recalibrating_twice_gives_the_same() -> None:
    model = small_model()
    recalibrate(model, batches())
    once = {name: value.clone() for name, value in model.state_dict().items()}
    recalibrate(model, iter(batches()))
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())


def test_an_emptied_block_keeps_only_its_bias() -> None:
    settings = search_space("hr-small").supernet(None)
    block = SearchBlock(Block(in_channels=3, out_channels=3, shift=True), settings).eval()
    norm = block.project_norm
    assert isinstance(norm, EmptyNorm)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.normal_()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        assert not torch.allclose(block(x), x + norm.bias.view(1, -1, 1, 1))
        recalibrate(block, [x, x])
        torch.testing.assert_close(block(x), x + norm.bias.view(1, -1, 1, 1))
    assert norm.momentum == settings.norm_momentum
    assert not norm.training
