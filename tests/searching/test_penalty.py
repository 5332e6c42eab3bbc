"""The penalty's step against the written formula: a fine numeric search, and autograd away from zero."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from hrnas.engine.optimization import KINDS, OptimizerOptions, make_optimizer
from hrnas.searching.penalty import gradient_sizes, penalty_value, pull_metric, pull_to_zero, relative_costs


def scales_of(values: list[list[float]]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(part, dtype=torch.float64)) for part in values]


def flat(scales: list[nn.Parameter]) -> Tensor:
    return torch.cat([scale.detach() for scale in scales])


def test_relative_costs_have_mean_one() -> None:
    macs = torch.tensor([100, 300, 200, 10**12])
    costs = relative_costs(macs)
    assert costs.dtype == torch.float32
    assert float(costs.double().mean()) == pytest.approx(1)
    assert (costs / costs[0]).tolist() == pytest.approx([1, 3, 2, 1e10])
    assert relative_costs(torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_penalty_value_is_the_sum() -> None:
    factor, costs = torch.tensor([0.5, 2.0, 0.0]), torch.tensor([1.0, 0.5, 1.5])
    assert penalty_value(factor, costs, 3.0) == pytest.approx(3.0 * (0.5 * 1.0 + 2.0 * 0.5))
    assert penalty_value(factor, costs, 0.0) == 0
    assert isinstance(penalty_value(factor, costs.double(), 1.0), float)


def test_pull_is_the_minimiser_of_the_proximal_objective() -> None:
    """Minimise weight * cost * |new| + size * (new - old)^2 / (2 * rate) over a fine grid, unit by unit."""
    weight, rate = 0.7, 0.05
    old = torch.tensor([0.9, -0.9, 0.02, -0.004, 0.0, 0.3, -2.0], dtype=torch.float64)
    costs = torch.tensor([1.0, 0.3, 1.5, 0.5, 1.0, 2.0, 0.1], dtype=torch.float64)
    sizes = torch.tensor([0.5, 2.0, 0.1, 1.0, 1.0, 0.02, 4.0], dtype=torch.float64)
    scales = scales_of([old[:3].tolist(), old[3:4].tolist(), old[4:].tolist()])
    pull_to_zero(scales, rate * weight * costs / sizes)
    grid = torch.linspace(-2.5, 2.5, 500_001, dtype=torch.float64)  # steps of 1e-5, zero among them
    for index in range(len(old)):
        objective = weight * costs[index] * grid.abs() + sizes[index] * (grid - old[index]) ** 2 / (2 * rate)
        best = float(grid[objective.argmin()])
        assert float(flat(scales)[index]) == pytest.approx(best, abs=1.01e-5)


def test_away_from_zero_the_pull_is_a_gradient_step_on_the_penalty() -> None:
    weight, rate = 0.4, 0.01
    scales = scales_of([[0.5, -0.8], [1.5, -0.2, 0.3]])
    costs = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.5], dtype=torch.float64)
    sizes = torch.tensor([1.0, 0.5, 2.0, 1.0, 4.0], dtype=torch.float64)
    before = flat(scales)
    penalty = weight * (costs * torch.cat(list(scales)).abs()).sum()
    assert penalty_value(before.abs(), costs, weight) == pytest.approx(float(penalty.detach()))
    gradient = torch.cat(torch.autograd.grad(penalty, scales))
    pull_to_zero(scales, rate * weight * costs / sizes)
    torch.testing.assert_close(flat(scales), before - rate * gradient / sizes, rtol=1e-12, atol=1e-14)


def test_pull_stops_exactly_at_zero_and_keeps_signs() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = [nn.Parameter(torch.randn(50, generator=generator)) for _ in range(3)]
    identities = [id(scale) for scale in scales]
    before = flat(scales)
    distance = torch.rand(150, generator=generator)
    pull_to_zero(scales, distance)
    after = flat(scales)
    reached = before.abs() <= distance
    assert 10 < int(reached.sum()) < 140
    assert bool((after[reached] == 0).all())
    assert bool((after[~reached].sign() == before[~reached].sign()).all())
    torch.testing.assert_close(after[~reached].abs(), (before.abs() - distance)[~reached])
    assert [id(scale) for scale in scales] == identities
    pull_to_zero(scales, torch.zeros(150))
    assert torch.equal(flat(scales), after)
    pull_to_zero(scales, torch.full((150,), 1e9))
    assert not flat(scales).any()
    pull_to_zero([], torch.zeros(0))


def test_gradient_sizes_are_adams_corrected_second_moment() -> None:
    scales = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    groups = [{"params": [scales[0]], "betas": (0.9, 0.99)}, {"params": [scales[1]], "betas": (0.8, 0.9)}]
    optimizer = AdamW(groups, lr=1e-3, weight_decay=0.0, fused=True)
    assert torch.equal(gradient_sizes(scales, optimizer), torch.ones(5))  # before the first step
    gradients = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    gradients[:, 4] = 0
    for gradient in gradients:
        scales[0].grad, scales[1].grad = gradient[:2].clone(), gradient[2:].clone()
        optimizer.step()
    expected = []
    for index, beta in enumerate([0.99, 0.99, 0.9, 0.9]):
        moment = 0.0
        for gradient in gradients[:, index].tolist():
            moment = beta * moment + (1 - beta) * gradient**2
        expected.append((moment / (1 - beta**4)) ** 0.5)
    found = gradient_sizes(scales, optimizer)
    assert found[:4].tolist() == pytest.approx(expected, rel=1e-5)
    assert 0 < float(found[4]) < 1e-9  # no gradient ever: not zero, the pull is divided by it
    assert not found.requires_grad


def test_gradient_sizes_where_a_factor_has_not_moved() -> None:
    scales = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(1))]
    optimizer = AdamW(scales, lr=1e-3, betas=(0.9, 0.99), fused=True)
    scales[0].grad, scales[2].grad = torch.tensor([2.0, -3.0]), torch.tensor([0.5])
    optimizer.step()
    assert gradient_sizes(scales, optimizer).tolist() == pytest.approx([2, 3, 1, 1, 1, 0.5], rel=1e-5)


def test_gradient_sizes_under_plain_sgd_are_one() -> None:
    scales = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))]
    optimizer = SGD(scales, lr=0.1, momentum=0.9)
    for scale in scales:
        scale.grad = torch.full_like(scale, 7.0)
    optimizer.step()
    assert gradient_sizes(scales, optimizer).tolist() == [1, 1, 1]
    assert gradient_sizes([], optimizer).shape == (0,)


def test_the_metric_of_the_pull_is_what_the_optimizer_does_to_a_steady_gradient() -> None:
    """After many steps of one gradient a step moves a factor by rate * gradient / size * reach."""
    gradient, rate = torch.tensor([3.0, -0.5, 1e-3, 2e-5], dtype=torch.float64), 1e-3
    for make in (
        lambda scales: AdamW(scales, lr=rate, weight_decay=0.0),
        lambda scales: Adam(scales, lr=rate),
        lambda scales: RMSprop(scales, lr=rate, alpha=0.8, momentum=0.75, eps=1e-3),
        lambda scales: RMSprop(scales, lr=rate, eps=1e-8),
        lambda scales: SGD(scales, lr=rate, momentum=0.9),
        lambda scales: SGD(scales, lr=rate),
    ):
        scales = [nn.Parameter(torch.ones(count, dtype=torch.float64)) for count in (3, 1)]
        optimizer = make(scales)
        for _ in range(300):
            before = flat(scales)
            scales[0].grad, scales[1].grad = gradient[:3].clone(), gradient[3:].clone()
            optimizer.step()
        sizes, reach = pull_metric(scales, optimizer)
        torch.testing.assert_close(before - flat(scales), rate * reach * gradient / sizes, rtol=1e-2, atol=1e-12)
        values = gradient_sizes(scales, optimizer)
        assert torch.equal(sizes, values + optimizer.defaults.get("eps", 0.0))
    assert pull_metric([], optimizer)[1] == 1


@pytest.mark.parametrize("loss_scale", [1.0, 1e-3])
@pytest.mark.parametrize("kind", KINDS)
def test_useless_factors_settle_at_zero_and_useful_ones_at_the_objectives_minimum(kind: str, loss_scale: float) -> None:
    """Least squares on independent inputs: the minimum of (f - t)^2 + weight * |f| is max(t - weight / 2, 0).

    A loss a thousand times as small has gradients below RMSprop's eps; its minimum is the same.
    """
    options = OptimizerOptions(kind=kind, learning_rate=0.001 if kind == "rmsprop" else 0.01)
    model = nn.Module()
    model.factors = nn.Parameter(torch.full((8,), 0.5))
    truth = torch.tensor([1.0, 1.0, 0.6, 0.8, 0.0, 0.0, 0.0, 0.0])
    optimizer = make_optimizer(model, options)
    generator, weight = torch.Generator().manual_seed(0), 0.5
    path = []
    for _ in range(800):
        inputs = torch.randn(16, 8, generator=generator)
        outputs = inputs @ truth + torch.randn(16, generator=generator)
        optimizer.zero_grad()
        (loss_scale * (inputs @ model.factors - outputs).square().mean()).backward()
        optimizer.step()
        sizes, reach = pull_metric([model.factors], optimizer)
        pull = (weight * loss_scale / sizes).clamp_max(1.0)
        pull_to_zero([model.factors], options.learning_rate * reach * pull)
        path.append(model.factors.detach().clone())
    settled = torch.stack(path[400:])
    assert float((settled[:, 4:] == 0).float().mean()) > 0.98
    assert float(settled[:, 4:].abs().max()) < 0.01
    torch.testing.assert_close(settled[:, :4].mean(0), truth[:4] - weight / 2, rtol=0, atol=0.03)
