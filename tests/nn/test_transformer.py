"""The lightweight transformer against one written here from docs/method.md, with a plain softmax."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hrnas.kernels import calling, compiling
from hrnas.nn import compiled
from hrnas.nn.transformer import LightweightTransformer, position_map, set_presences
from hrnas.nn.transformer_layer import Attention, Layer, dropout_masks

EPS = 1e-5


@pytest.fixture(params=["compiled", "plain"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run with the compiled layer and resizing, then with torch's operators."""
    calls: list[str] = []
    find = calling._function
    monkeypatch.setattr(calling, "_function", lambda name, dtype: (calls.append(name), find(name, dtype))[1])
    if request.param == "plain":
        monkeypatch.setattr(compiled, "supports", lambda x: False)
    elif compiling.problem() is not None:
        pytest.skip(f"no kernels: {compiling.problem()}")
    yield
    assert ("layer" in calls) == (request.param == "compiled")


Weights = dict[str, Tensor]
Masks = list[Tensor]


def plain_position_map(size: int) -> Tensor:
    """Return (2, size, size): x, then y, each with mean 0 and population std 1 over the map."""
    mean = (size - 1) / 2
    std = math.sqrt(sum((step - mean) ** 2 for step in range(size)) / size)
    maps = torch.empty(2, size, size, dtype=torch.float64)
    for row in range(size):
        for column in range(size):
            maps[0, row, column] = (column - mean) / std
            maps[1, row, column] = (row - mean) / std
    return maps.float().double()  # the layer keeps it in single precision


def plain_batch_norm(x: Tensor, weights: Weights, name: str, training: bool) -> Tensor:
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        unbiased = x.var((0, 2, 3), correction=1)
        for statistic, value in (("running_mean", mean), ("running_var", unbiased)):
            before = weights[f"{name}.{statistic}"]
            weights[f"{name}.{statistic} after"] = 0.9 * before + 0.1 * value.detach()
    else:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    normal = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + EPS)
    return normal * scale[:, None, None] + shift[:, None, None]


def plain_layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(var + EPS) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def plain_attention(
    queries: Tensor, memory: Tensor, weights: Weights, name: str, heads: int, mask: Tensor | None
) -> Tensor:
    width = memory.shape[-1]
    to_query, to_key, to_value = weights[f"{name}.query_key_value.weight"].split(width)
    q, k, v = queries @ to_query.T, memory @ to_key.T, memory @ to_value.T
    part = width // heads
    mixed = []
    for head in range(heads):
        columns = slice(head * part, (head + 1) * part)
        scores = q[..., columns] @ k[..., columns].transpose(-1, -2) / math.sqrt(part)
        shares = scores.softmax(-1)
        if mask is not None:
            shares = shares * mask.unflatten(0, (-1, heads))[:, head]
        mixed.append(shares @ v[..., columns])
    return torch.cat(mixed, dim=-1) @ weights[f"{name}.out.weight"].T


def plain_layer(x: Tensor, queries: Tensor, weights: Weights, name: str, heads: int, masks: Masks) -> Tensor:
    """A layer; masks: of attention's output, hidden values, output, attention weights, or none."""
    of_mixed, of_hidden, of_output, of_weights = masks or (1.0, 1.0, 1.0, None)
    attended = plain_attention(queries, x, weights, f"{name}.attention", heads, of_weights)
    x = plain_layer_norm(x + attended * of_mixed, weights, f"{name}.norm1")
    hidden = torch.relu(x @ weights[f"{name}.feed_forward.0.weight"].T) * of_hidden
    output = hidden @ weights[f"{name}.feed_forward.3.weight"].T * of_output
    return plain_layer_norm(x + output, weights, f"{name}.norm2")


def plain_transformer(
    x: Tensor,
    weights: Weights,
    *,
    size: int,
    heads: int,
    out_size: tuple[int, int],
    training: bool,
    masks: list[Masks] | None = None,
) -> Tensor:
    batch = len(x)
    small = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
    placed = torch.cat([small, plain_position_map(size).expand(batch, 2, size, size)], dim=1)
    projected = torch.einsum("nc,bchw->bnhw", weights["projector.weight"][:, :, 0, 0], placed)
    tokens = plain_batch_norm(projected, weights, "token_norm", training).reshape(batch, -1, size * size)

    # The residual of the decoder comes from the encoder's output.
    encoded = plain_layer(tokens, tokens, weights, "encoder", heads, masks[0] if masks else [])
    queries = weights["queries"].expand(batch, -1, -1)
    decoded = plain_layer(encoded, queries, weights, "decoder", heads, masks[1] if masks else [])

    maps = decoded.reshape(batch, -1, size, size)
    out = torch.einsum("cn,bnhw->bchw", weights["inverse_projector.weight"][:, :, 0, 0], maps)
    out = plain_batch_norm(out, weights, "out_norm", training)
    return F.interpolate(out, out_size, mode="bilinear", align_corners=False)


def random_transformer(
    in_channels: int, out_channels: int, *, size: int, heads: int, dropout: float = 0.0
) -> LightweightTransformer:
    torch.manual_seed(0)
    transformer = LightweightTransformer(in_channels, out_channels, tokens=5, size=size, heads=heads, dropout=dropout)
    for name, tensor in transformer.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return transformer.double()


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def assert_equals_the_plain_one(
    transformer: LightweightTransformer,
    x: Tensor,
    out_size: tuple[int, int],
    tolerance: float,
    masks: list[Masks] | None = None,
) -> None:
    """Compare output, all gradients and running statistics with those of the plain form in float64."""
    weights = {name: tensor.detach().double().clone() for name, tensor in transformer.state_dict().items()}
    parameters = dict(transformer.named_parameters())
    for name in parameters:
        weights[name].requires_grad_()
    plain_x = x.detach().double().requires_grad_()
    x.requires_grad_()
    torch.manual_seed(1)
    found = transformer(x, out_size)
    size, heads, training = transformer.size, transformer.encoder.attention.heads, transformer.training
    expected = plain_transformer(
        plain_x, weights, size=size, heads=heads, out_size=out_size, training=training, masks=masks
    )
    assert found.shape == expected.shape == (len(x), transformer.out_norm.num_features, *out_size)
    assert found.dtype == x.dtype
    assert relative(found, expected) <= tolerance
    direction = torch.randn_like(expected)
    (found * direction.to(found)).sum().backward()
    (expected * direction).sum().backward()
    assert relative(x.grad, plain_x.grad) <= tolerance
    for name, parameter in parameters.items():
        assert relative(parameter.grad, weights[name].grad) <= tolerance, name
    for name, buffer in transformer.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            assert (relative(buffer, weights[name]) == 0) == (not training), name
            if training:
                assert relative(buffer, weights[f"{name} after"]) <= tolerance, name


SHAPES = [
    (6, 6, 8, 1, (11, 17)),
    (6, 9, 8, 2, (6, 9)),
    (3, 2, 4, 4, (5, 3)),
    (3, 2, 4, 1, (4, 4)),
    (3, 20, 7, 1, (9, 9)),
]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("in_channels", "out_channels", "size", "heads", "out_size"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["plain", "last"])
def test_equals_a_transformer_written_plainly(
    in_channels: int,
    out_channels: int,
    size: int,
    heads: int,
    out_size: tuple[int, int],
    training: bool,
    dtype: torch.dtype,
    tolerance: float,
    memory_format: torch.memory_format,
) -> None:
    transformer = random_transformer(in_channels, out_channels, size=size, heads=heads).train(training)
    transformer.to(dtype, memory_format=memory_format)
    for in_size in ((11, 17), (size, size)):
        x = torch.randn(3, in_channels, *in_size, dtype=dtype).contiguous(memory_format=memory_format)
        assert_equals_the_plain_one(transformer, x, out_size, tolerance)
        assert transformer(x, out_size).is_contiguous(memory_format=memory_format)
        transformer.zero_grad()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("in_channels", "out_channels", "size", "heads", "out_size"), SHAPES)
def test_dropout_multiplies_by_its_masks(
    in_channels: int, out_channels: int, size: int, heads: int, out_size: tuple[int, int]
) -> None:
    """The plain form with the masks that the same seed draws, those of the encoder first."""
    transformer = random_transformer(in_channels, out_channels, size=size, heads=heads, dropout=0.3)
    x = torch.randn(3, in_channels, 11, 17, dtype=torch.float64)
    shapes = [torch.Size((3, 5, size * size))] * 3 + [torch.Size((3 * heads, 5, 5))]
    torch.manual_seed(1)
    masks = [dropout_masks(shapes, 0.3, x) for _ in range(2)]
    assert_equals_the_plain_one(transformer, x, out_size, 1e-10, masks)


@pytest.mark.skipif(compiling.problem() is not None, reason=f"no kernels: {compiling.problem()}")
@pytest.mark.parametrize("heads", [1, 2])
def test_any_number_of_threads_gives_the_same_bits(heads: int) -> None:
    """Enough rows that threads are worth their start."""
    torch.manual_seed(0)
    layer = Layer(64, heads, 0.1)
    x, queries = torch.randn(9, 20, 64), torch.randn(20, 64)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            given = [value.clone().requires_grad_() for value in (x, queries)]
            out = layer(layer(given[0]), given[1])
            out.backward(torch.ones_like(out).cumsum(1))
            results.append([out.detach(), *(value.grad for value in (*given, *layer.parameters()))])
            layer.zero_grad()
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_masks_are_zeros_and_what_keeps_the_mean(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shapes = [torch.Size((40, 50)), torch.Size((3, 7000))]
    masks = dropout_masks(shapes, 0.2, torch.zeros(1, dtype=dtype))
    assert [mask.shape for mask in masks] == shapes
    drawn = torch.cat([mask.flatten() for mask in masks])
    assert drawn.dtype == dtype
    assert set(drawn.tolist()) == {0.0, float(torch.tensor(1.25, dtype=dtype))}
    assert float((drawn == 0).double().mean()) == pytest.approx(0.2, abs=0.01)  # four deviations
    with torch.autocast("cpu", torch.bfloat16):
        assert dropout_masks(shapes, 0.2, torch.zeros(1))[0].dtype == torch.bfloat16


@pytest.mark.parametrize("bias", [None, [0.0, -1.0, -math.inf, 0.5, 2.0]])
def test_attention_under_a_mask_of_ones_is_torchs(bias: list[float] | None) -> None:
    """The attention written for dropout, with and without a key bias, and the one without dropout."""
    torch.manual_seed(0)
    attention = Attention(16, 2, 0.0).double()
    memory, queries = torch.randn(3, 5, 16, dtype=torch.float64), torch.randn(5, 16, dtype=torch.float64)
    key_bias = None if bias is None else torch.tensor(bias)
    ones = torch.ones(6, 5, 5, dtype=torch.float64)
    for own in (None, queries):
        expected = attention(memory, own, key_bias)
        assert relative(attention(memory, own, key_bias, ones), expected) <= 1e-10
        assert not torch.allclose(attention(memory, own, key_bias, ones.tril()), expected)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    transformer = LightweightTransformer(4, 4, tokens=6, size=4, heads=1, dropout=0.5)
    x = torch.randn(2, 4, 8, 8)
    assert not torch.allclose(transformer(x, (8, 8)), transformer(x, (8, 8)))
    transformer.eval()
    assert torch.equal(transformer(x, (8, 8)), transformer(x, (8, 8)))


@pytest.mark.parametrize("size", [2, 5, 8])
def test_position_map_is_standardised(size: int) -> None:
    positions = position_map(size)
    assert positions.shape == (1, 2, size, size)
    torch.testing.assert_close(positions[0].double(), plain_position_map(size))
    torch.testing.assert_close(positions.mean((2, 3)), torch.zeros(1, 2))
    torch.testing.assert_close(positions.std((2, 3), correction=0), torch.ones(1, 2))


def test_the_position_map_of_one_place_is_zero() -> None:
    assert torch.equal(position_map(1), torch.zeros(1, 2, 1, 1))


def without(layer: LightweightTransformer, kept: list[int], in_channels: int) -> LightweightTransformer:
    """Return the same transformer with these tokens alone, by a plain reading of its layout."""
    bare = LightweightTransformer(in_channels, 5, tokens=len(kept), size=4, heads=2, dropout=0.0).double()
    state = layer.state_dict()
    for key in state:
        place = key.split(".")[0]
        if place in ("projector", "token_norm", "queries") and state[key].dim():
            state[key] = state[key][kept]
        elif place == "inverse_projector":
            state[key] = state[key][:, kept]
    bare.load_state_dict(state)
    return bare.train(layer.training)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gone", [[0], [1, 4], [0, 1, 2, 3, 4]])
def test_tokens_without_presence_are_out(training: bool, gone: list[int]) -> None:
    torch.manual_seed(0)
    layer = LightweightTransformer(3, 5, tokens=6, size=4, heads=2, dropout=0.0).double().train(training)
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    presence = torch.ones(6)
    presence[gone] = 0
    layer.set_presence(presence)
    bare = without(layer, [token for token in range(6) if token not in gone], 3)
    torch.testing.assert_close(layer(x, (7, 9)), bare(x, (7, 9)), rtol=1e-9, atol=1e-11)
    layer.set_presence(torch.ones(6))
    assert layer.key_bias is None
    assert not torch.allclose(layer(x, (7, 9)), bare(x, (7, 9)))


def test_a_token_of_scale_zero_that_is_present_is_not_out() -> None:
    """Why there are presences: a zero scale alone changes what the other tokens become."""
    torch.manual_seed(0)
    layer = LightweightTransformer(3, 5, tokens=6, size=4, heads=2, dropout=0.0).double().eval()
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    with torch.no_grad():
        layer.token_norm.weight[2] = 0
        layer.inverse_projector.weight[:, 2] = 0
        found, expected = layer(x, (7, 9)), without(layer, [0, 1, 3, 4, 5], 3)(x, (7, 9))
    assert float((found - expected).norm() / expected.norm()) > 0.01


def test_the_last_tokens_fade_with_the_module() -> None:
    torch.manual_seed(0)
    layer = LightweightTransformer(3, 5, tokens=3, size=4, heads=2, dropout=0.0).double()
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    whole = layer(x, (7, 9))
    norms = []
    for presence in (0.5, 0.1, 1e-3, 0.0):
        layer.set_presence(torch.tensor([presence, presence, 0.0]))
        norms.append(layer(x, (7, 9)).norm().item())
    two = without(layer, [0, 1], 3)(x, (7, 9)).norm().item()
    assert norms == pytest.approx([0.5 * two, 0.1 * two, 1e-3 * two, 0], rel=1e-6)
    layer.set_presence(None)
    torch.testing.assert_close(layer(x, (7, 9)), whole)


def test_presences_of_several_transformers() -> None:
    """Ragged ones, one all present, one all out: what each has alone, by the formula."""
    presences = [[1.0, 1.0], [0.5, 0.0, 0.25], [0.0, 0.0], [1.0, 0.125, 0.5, 1.0]]
    layers = [LightweightTransformer(3, 5, tokens=len(own), size=2, heads=1, dropout=0.0) for own in presences]
    layers[0].set_presence(torch.tensor([0.5, 1.0]))  # of before
    set_presences(layers, torch.tensor([value for own in presences for value in own]))
    assert layers[0].key_bias is None
    assert layers[0].module_gate is None
    for layer, own in zip(layers[1:], presences[1:], strict=True):
        largest = max(own)
        relative = [value / largest if largest else 1.0 for value in own]
        assert float(layer.module_gate) == largest
        assert layer.token_gate[:, 0].tolist() == pytest.approx(relative)
        logs = [math.log(value) if value else -math.inf for value in relative]
        assert layer.key_bias.tolist() == pytest.approx(logs)
    set_presences([], torch.zeros(0))


def test_presence_is_no_part_of_a_saved_network() -> None:
    layer = LightweightTransformer(3, 5, tokens=6, size=4, heads=2, dropout=0.0)
    before = set(layer.state_dict())
    layer.set_presence(torch.tensor([1, 0.5, 1, 1, 1, 1]))
    assert set(layer.state_dict()) == before
    assert layer.key_bias is not None
