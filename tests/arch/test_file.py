"""The architecture file: round trip, refusals that name the field, fingerprint, layout of the text."""

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from architectures import architectures, random_architecture
from hrnas.arch.architecture import (
    AnchorHead,
    Architecture,
    Block,
    ClassHead,
    DenseHead,
    FusionPath,
    Pillars,
    Stage,
    StemConv,
)
from hrnas.arch.file import fingerprint, from_data, from_json, read_architecture, to_data, to_json
from hrnas.arch.presets import SPACES
from hrnas.errors import InputError

TINY = Architecture(
    name="tiny",
    stem=(StemConv(out_channels=4),),
    stages=(
        Stage(
            paths=(FusionPath(source=0, target=0, block=Block(in_channels=4, out_channels=6, kernels=((3, 5),))),),
            grow=(Block(in_channels=6, out_channels=8, stride=2),),
            branches=((Block(in_channels=6, out_channels=6, kernels=((3, 2), (5, 1)), tokens=2),), ()),
        ),
        Stage(
            paths=(
                FusionPath(source=0, target=0, block=Block(in_channels=6, out_channels=6)),
                FusionPath(source=1, target=0, block=Block(in_channels=8, out_channels=6)),
                FusionPath(source=0, target=1, block=Block(in_channels=6, out_channels=8, stride=2)),
                FusionPath(source=1, target=1, block=Block(in_channels=8, out_channels=8)),
            ),
            grow=(),
            branches=((), ()),
        ),
    ),
    head=DenseHead(block=Block(in_channels=14, out_channels=5, kernels=((7, 3),)), outputs=2),
)

CLASSES = replace(
    TINY,
    head=ClassHead(
        widen=(
            Block(in_channels=6, out_channels=7, kernels=((3, 4),), squeeze=2),
            Block(in_channels=8, out_channels=9),
        ),
        down=(Block(in_channels=7, out_channels=9, stride=2),),
        features=10,
        outputs=3,
    ),
    activation="swish",
)

ANCHORS = replace(TINY, head=AnchorHead(outputs=3), pillars=Pillars(channels=5), in_channels=5)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(architecture=architectures())
def test_round_trip_is_identity(architecture: Architecture) -> None:
    text = to_json(architecture)
    again = from_json(text)
    assert again == architecture
    assert to_json(again) == text
    assert fingerprint(again) == fingerprint(architecture)
    assert from_data(json.loads(json.dumps(to_data(architecture)))) == architecture


@pytest.mark.parametrize("name", sorted(SPACES))
def test_round_trip_of_presets_through_a_file(name: str, tmp_path: Path) -> None:
    architecture = SPACES[name].supernet(19)
    path = tmp_path / "architecture.json"
    path.write_text(to_json(architecture), encoding="utf-8")
    assert read_architecture(path) == architecture


def test_what_files_did_not_always_have_is_left_out_where_it_is_not_used() -> None:
    """So that files and fingerprints from before there were heads of classes, activations and gates stay the same."""
    data = to_data(TINY)
    assert "kind" not in data["head"]
    assert "activation" not in data
    assert "squeeze" not in data["head"]["block"]
    assert from_data({**data, "activation": "relu", "head": {"kind": "dense", **data["head"]}}) == TINY
    assert to_data(CLASSES)["head"]["kind"] == "classes"
    assert to_data(CLASSES)["activation"] == "swish"
    assert to_data(CLASSES)["head"]["widen"][0]["squeeze"] == 2


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return the change that puts `value` at a place of the data; the last part of `path` may be a new key."""

    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        del data[path[-1]]

    return change


GROW = ("stages", 0, "grow", 0)
FIRST_PATH = ("stages", 0, "paths", 0)
BLOCK = ("stages", 0, "branches", 0, 0)
FUSION = ("stages", 1, "paths")

REFUSED = {
    "unknown key": (
        put("stems", value=[]),
        "unknown key 'stems'. Did you mean 'stem'? Known: activation, attention_heads, ",
    ),
    "unknown key far from all": (put("xyz", value=1), "unknown key 'xyz'. Known: activation, attention_heads, "),
    "unknown key inside": (
        put(*BLOCK, "token", value=1),
        "unknown key 'stages.0.branches.0.0.token'. Did you mean 'tokens'?",
    ),
    "missing key": (drop("stem"), "key 'stem' is missing. Correct the file"),
    "missing key inside": (drop("head", "block", "in_channels"), "key 'head.block.in_channels' is missing"),
    "text for a number": (put("in_channels", value="3"), 'in_channels is a text ("3"); a whole number is needed'),
    "true for a whole number": (
        put(*BLOCK, "tokens", value=True),
        "stages.0.branches.0.0.tokens is true or false (true); a whole number is needed",
    ),
    "true for a number": (put("dropout", value=True), "dropout is true or false (true); a number is needed"),
    "fraction for a whole number": (put("token_size", value=8.0), "token_size is a number (8.0); a whole number"),
    "number for a text": (put("name", value=3), "name is a whole number (3); a text is needed"),
    "number for true or false": (put(*GROW, "shift", value=1), "stages.0.grow.0.shift is a whole number (1); true or"),
    "null": (put("stem", value=None), "stem is null (null); a list is needed"),
    "object for a list": (put("stages", value={}), "stages is an object ({}); a list is needed"),
    "list for an object": (put("head", value=[]), "head is a list ([]); an object is needed"),
    "list for a block": (put(*BLOCK, value=[1]), "stages.0.branches.0.0 is a list ([1]); an object is needed"),
    "kernels as a list": (put(*BLOCK, "kernels", value=[3]), "stages.0.branches.0.0.kernels is a list ([3])"),
    "kernel size no number": (
        put(*BLOCK, "kernels", value={"3x3": 2}),
        "stages.0.branches.0.0.kernels has the key '3x3'; whole numbers are needed",
    ),
    "kernel width no number": (
        put(*BLOCK, "kernels", value={"3": 2.5}),
        "stages.0.branches.0.0.kernels.3 is a number (2.5); a whole number is needed",
    ),
    "kernel width true": (put(*BLOCK, "kernels", value={"3": True}), "kernels.3 is true or false (true)"),
    "even kernel": (put(*BLOCK, "kernels", value={"4": 2}), "stages.0.branches.0.0: kernels have sizes [4]; kernel"),
    "kernel size zero": (put(*BLOCK, "kernels", value={"0": 2}), "kernels have sizes [0]"),
    "kernel twice": (put(*BLOCK, "kernels", value={"3": 2, "03": 2}), "kernels have sizes [3, 3]"),
    "kernel without channels": (
        put(*BLOCK, "kernels", value={"3": 0}),
        "stages.0.branches.0.0: kernel 3 has 0 channels; leave the kernel out to have none",
    ),
    "negative tokens": (put(*BLOCK, "tokens", value=-1), "stages.0.branches.0.0: tokens is -1; it cannot be negative"),
    "no input channels": (put(*BLOCK, "in_channels", value=0), "in_channels is 0; a block needs at least 1 channel"),
    "no output channels": (put(*BLOCK, "out_channels", value=-2), "out_channels is -2; a block needs at least 1"),
    "stride 3": (put(*GROW, "stride", value=3), "stages.0.grow.0: stride is 3; a block has stride 1 or 2"),
    "shift beside kernels": (put(*BLOCK, "shift", value=True), "shift is set on a block with kernels"),
    "stem without channels": (put("stem", 0, "out_channels", value=0), "stem.0: stem out_channels is 0; at least 1"),
    "stem stride": (put("stem", 0, "stride", value=4), "stem.0: stem stride is 4; 1 or 2 is needed"),
    "empty stem": (put("stem", value=[]), "stem is empty; it needs at least one convolution"),
    "no stages": (put("stages", value=[]), "stages is empty; a network needs at least one stage"),
    "image without channels": (put("in_channels", value=0), "in_channels is 0; an image has at least 1"),
    "token size": (put("token_size", value=0), "token_size is 0; at least 1 is needed"),
    "heads do not divide": (put("attention_heads", value=3), "attention_heads is 3; it must divide the token width 64"),
    "no heads": (put("attention_heads", value=0), "attention_heads is 0; it must divide"),
    "dropout": (put("dropout", value=1.0), "dropout is 1.0; it must lie in [0, 1)"),
    "dropout not a number": (put("dropout", value=math.nan), "dropout is nan; it must lie in [0, 1)"),
    "norm_momentum": (put("norm_momentum", value=0), "norm_momentum is 0.0; it must lie in (0, 1]"),
    "norm_eps": (put("norm_eps", value=0.0), "norm_eps is 0.0; it must be positive"),
    "norm_eps infinite": (put("norm_eps", value=math.inf), "norm_eps is inf; it must be positive and finite"),
    "no outputs": (put("head", "outputs", value=0), "head: outputs is 0; a head needs at least 1"),
    "chain into a path": (
        put(*FIRST_PATH, "block", "in_channels", value=5),
        "stages.0: the path 0 to 0 takes 5 channels; it gets 4",
    ),
    "chain into a new branch": (put(*GROW, "in_channels", value=5), "stages.0.grow.0 takes 5 channels; it gets 6"),
    "chain along a branch": (
        put(*BLOCK, "in_channels", value=5),
        "stages.0.branches.0.0 takes 5 channels; it gets 6",
    ),
    "chain out of a branch": (
        put(*BLOCK, "out_channels", value=7),
        "stages.1: the path 0 to 0 takes 6 channels; it gets 7",
    ),
    "chain into the head": (
        put("head", "block", "in_channels", value=13),
        "head.block takes 13 channels; the branches together have 14",
    ),
    "paths disagree": (
        put(*FUSION, 1, "block", "out_channels", value=7),
        "stages.1: the paths into branch 0 give [6, 7] channels; must agree",
    ),
    "stride in a branch": (put(*BLOCK, "stride", value=2), "stages.0.branches.0.0 has stride 2; blocks of a branch"),
    "stride of a new branch": (put(*GROW, "stride", value=1), "stages.0.grow.0 has stride 1; a new branch needs"),
    "stride of a path": (
        put(*FUSION, 0, "block", "stride", value=2),
        "stages.1.paths.0: the path from branch 0 to 0 has stride 2; it needs 1",
    ),
    "stride of the head": (put("head", "block", "stride", value=2), "head.block has stride 2; the head's block has"),
    "path to a stranger": (
        put(*FUSION, 0, "source", value=2),
        "stages.1.paths.0: a fusion path goes from branch 2 to 0; only neighbours",
    ),
    "negative branch": (put(*FUSION, 0, "source", value=-1), "a fusion path goes from branch -1 to 0"),
    "paths out of order": (
        lambda data: data["stages"][1]["paths"].reverse(),
        "stages.1 lists its paths as [(1, 1), (1, 0), (0, 1), (0, 0)]; order them by target, then by source",
    ),
    "path twice": (
        lambda data: data["stages"][0]["paths"].append(data["stages"][0]["paths"][0]),
        "stages.0 lists its paths as [(0, 0), (0, 0)]; order them",
    ),
    "branch without a path": (
        lambda data: data["stages"][1].update(paths=data["stages"][1]["paths"][:2]),
        "stages.1 has no path into branch 1 from itself or from the branch above it",
    ),
    "branch fed from below alone": (
        lambda data: data["stages"][1]["paths"].pop(0),
        "stages.1 has no path into branch 0 from itself or from the branch above it",
    ),
    "path from no branch": (
        lambda data: data["stages"][0]["paths"].append(
            {"source": 1, "target": 0, "block": {"in_channels": 4, "out_channels": 6}}
        ),
        "stages.0 joins branch 1 to 0; it has 1 going in, 1 fused",
    ),
    "branches from nowhere": (
        lambda data: data["stages"][0]["grow"].clear(),
        "stages.0 has 2 branches, 0 of them new, from 1; branches that are not new",
    ),
    "another format": (put("format", value="hrnas-run"), "format is 'hrnas-run'; an architecture file has 'hrnas-arch"),
    "no format": (drop("format"), "format is None; an architecture file has 'hrnas-architecture'"),
    "another version": (put("version", value=2), "version is 2; this hrnas reads version 1. Update hrnas."),
    "version true": (put("version", value=True), "version is True; this hrnas reads version 1"),
    "no version": (drop("version"), "version is None; this hrnas reads version 1"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_refused_with_a_message_that_names_the_field(case: str) -> None:
    change, message = REFUSED[case]
    data = json.loads(to_json(TINY))
    change(data)
    with pytest.raises(InputError) as caught:
        from_json(json.dumps(data), "net.json")
    text = str(caught.value)
    assert text.startswith("net.json: ")
    assert message in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "net.json is not JSON (Expecting property name"),
        ("", "net.json is not JSON (Expecting value"),
        ("[" * 100_000, "net.json is not JSON (maximum recursion depth"),
        ("[]", "net.json: format is 'list'; an architecture file has 'hrnas-architecture'"),
        ("3", "net.json: format is 'int'"),
    ],
)
def test_text_that_is_no_architecture(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(text, "net.json")
    assert str(caught.value).startswith(message)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing.json", tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (missing, binary, tmp_path):
        with pytest.raises(InputError, match=r"cannot be read .* Give the path of an architecture\.json") as caught:
            read_architecture(path)
        assert str(caught.value).startswith(str(path))
    foreign = tmp_path / "foreign.json"
    foreign.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="format is None") as caught:
        read_architecture(foreign)
    assert str(caught.value).startswith(f"{foreign}: ")


def test_defaults_may_be_left_out_and_whole_numbers_stand_for_numbers() -> None:
    data = json.loads(to_json(TINY))
    del data["dropout"], data["stages"][0]["grow"][0]["shift"]
    data["norm_momentum"] = 1
    assert from_data(data) == replace(TINY, norm_momentum=1.0)
    assert fingerprint(from_data(data)) == fingerprint(replace(TINY, norm_momentum=1))


def test_fingerprint_ignores_formatting_and_order_of_keys() -> None:
    data = json.loads(to_json(TINY))
    turned = json.loads(json.dumps(data), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert list(turned) == list(reversed(data))
    for text in (json.dumps(turned), json.dumps(data, indent=4), json.dumps(data, separators=(",", ":"))):
        assert fingerprint(from_json(text)) == fingerprint(TINY)
    assert len(fingerprint(TINY)) == 12
    int(fingerprint(TINY), 16)


def test_fingerprint_is_anchored() -> None:
    """Runs and reports quote fingerprints: a new version of the file format must change this on purpose."""
    assert fingerprint(TINY) == "6e3e5b15b2d8"


def parts(value: object) -> Iterator[Any]:
    """Yield every dataclass inside `value`, itself included."""
    if dataclasses.is_dataclass(value):
        yield value
        value = tuple(vars(value).values())
    if isinstance(value, tuple):
        for item in value:
            yield from parts(item)


def other(name: str, value: object) -> object:
    """Return another value for the field `name`."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case ():
            return ((3, 1),) if name == "kernels" else (Block(in_channels=1, out_channels=1),)
        case tuple():
            return value[:-1]
        case None:
            return Pillars()
        case _:
            return None


@pytest.mark.parametrize("whole", [TINY, CLASSES, ANCHORS], ids=["dense", "classes", "anchors"])
def test_fingerprint_sees_every_field(whole: Architecture) -> None:
    """Each field of each part is changed in turn, past the checks; no two networks share a fingerprint."""
    changes = [(number, field.name) for number, part in enumerate(parts(whole)) for field in dataclasses.fields(part)]
    kinds = {type(part) for part in parts(whole)}
    assert kinds - {Pillars} == {Architecture, StemConv, Stage, FusionPath, Block, type(whole.head)}
    seen = {fingerprint(whole): "nothing"}
    for number, name in changes:
        changed = copy.deepcopy(whole)
        part = list(parts(changed))[number]
        object.__setattr__(part, name, other(name, getattr(part, name)))
        print_of_it = fingerprint(changed)
        assert print_of_it not in seen, f"{type(part).__name__}.{name} looks like {seen[print_of_it]}"
        seen[print_of_it] = f"{number}.{name}"
    assert len(seen) == len(changes) + 1


def test_a_network_for_clouds_round_trips_and_refuses_what_does_not_fit() -> None:
    assert from_json(to_json(ANCHORS)) == ANCHORS
    assert to_data(ANCHORS)["head"] == {"kind": "anchors", "outputs": 3}
    assert "pillars" not in to_data(TINY)
    for change, message in (
        (put("in_channels", value=3), "in_channels is 3; pillars.channels is 5. Make them equal"),
        (put("head", "anchors", value=9), "unknown key 'head.anchors'"),
        (put("head", "outputs", value=0), "head: outputs is 0; a head needs at least 1"),
        (put("pillars", "cell", value=0), "pillars: pillars.cell is 0.0; a number of metres in 0.01..10 is needed"),
        (put("pillars", "rows", value=0), "pillars: pillars.rows is 0; at least 1 is needed"),
        (
            put("pillars", "top", value=-3),
            "pillars: pillars reach from -3.0 to -3.0; within -1000..1000 bottom must lie",
        ),
    ):
        data = json.loads(to_json(ANCHORS))
        change(data)
        with pytest.raises(InputError) as caught:
            from_data(data, "net.json")
        assert message in str(caught.value)


REFUSED_OF_CLASSES = {
    "kind": (put("head", "kind", value="clases"), "head.kind is 'clases'. Did you mean 'classes'? Known: anchors, cl"),
    "kind no text": (put("head", "kind", value=1), "head.kind is a whole number (1); a text is needed"),
    "key of the other head": (put("head", "block", value={}), "unknown key 'head.block'. Known: down, dropout, featu"),
    "missing key": (drop("head", "widen"), "key 'head.widen' is missing"),
    "kind elsewhere": (put("stem", 0, "kind", value="dense"), "unknown key 'stem.0.kind'"),
    "activation": (
        put("activation", value="swich"),
        "Unknown activation 'swich'. Did you mean 'swish'? Known: relu, s",
    ),
    "negative squeeze": (put("head", "widen", 0, "squeeze", value=-1), "head.widen.0: squeeze is -1; it cannot be neg"),
    "squeeze of nothing": (
        put("head", "widen", 1, "squeeze", value=2),
        "head.widen.1: squeeze is 2 on a block without",
    ),
    "no outputs": (put("head", "outputs", value=0), "head: outputs is 0; a head needs at least 1"),
    "no features": (put("head", "features", value=0), "head: features is 0; a head of classes needs at least 1"),
    "dropout": (put("head", "dropout", value=1), "head: dropout is 1.0; it must lie in [0, 1)"),
    "too few going down": (put("head", "down", value=[]), "head: widen has 2 blocks and down 0; down has one fewer"),
    "stride of widen": (put("head", "widen", 0, "stride", value=2), "head: widen.0 has stride 2; it needs 1"),
    "stride of down": (put("head", "down", 0, "stride", value=1), "head: down.0 has stride 1; it needs 2"),
    "widths of down": (
        put("head", "down", 0, "in_channels", value=8),
        "head: down.0 goes from 8 to 9 channels; widen has (7, 9)",
    ),
    "chain into the head": (
        put("head", "widen", 0, "in_channels", value=5),
        "head.widen takes [5, 8] channels; the branches have [6, 8]",
    ),
}


@pytest.mark.parametrize("case", REFUSED_OF_CLASSES)
def test_of_a_head_of_classes_is_refused(case: str) -> None:
    change, message = REFUSED_OF_CLASSES[case]
    data = json.loads(to_json(CLASSES))
    change(data)
    with pytest.raises(InputError) as caught:
        from_json(json.dumps(data), "net.json")
    assert str(caught.value).startswith("net.json: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_the_text_has_one_block_a_line(name: str) -> None:
    architecture = SPACES[name].supernet(19)
    text = to_json(architecture)
    assert json.loads(text) == to_data(architecture)
    assert text.endswith("}\n")
    lines = [line for line in text.splitlines() if '"kernels"' in line]
    assert len(lines) == len(list(architecture.blocks()))
    for line, (_, block) in zip(lines, architecture.blocks(), strict=True):
        start = line.index('{"in_channels"')
        written = {name: value for name, value in vars(block).items() if name != "squeeze"}  # there is none
        assert json.JSONDecoder().raw_decode(line[start:])[0] == {**written, "kernels": line_kernels(block)}
    assert max(len(line) for line in text.splitlines()) <= 160


def line_kernels(block: Block) -> dict[str, int]:
    return {str(size): channels for size, channels in block.kernels}


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_gives_the_same_architecture(seed: int) -> None:
    """Of the tests' own generator."""
    assert random_architecture(Random(seed)) == random_architecture(Random(seed))
