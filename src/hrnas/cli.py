"""The command line: a dict of verbs, each a function from typed options to a result.

Exit codes: 0, 1 a run that failed, 2 bad input, 3 budget not satisfiable, 130 interrupted with a checkpoint written.
"""

import ctypes
import importlib
import json
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from itertools import zip_longest
from typing import Any, Final

import rich
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from hrnas.commands.interruption import interruptible
from hrnas.engine.records import to_plain
from hrnas.errors import HrnasError, InputError, LostProcessError, did_you_mean
from hrnas.version import VERSION


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb: what it does in a line, and the names of its positional arguments. Its module bears its name.

    recipes: its defaults come from a recipe. many: its last positional takes any number of values.
    shared: several processes may run it together.
    """

    summary: str
    positionals: tuple[str, ...]
    recipes: bool = False
    many: bool = False
    shared: bool = False


VERBS: Final[dict[str, Verb]] = {
    "check": Verb(summary="examine a data set before a search", positionals=("data",)),
    "plan": Verb(summary="show what a search would cost, without training", positionals=("data",), recipes=True),
    "search": Verb(
        summary="search and train a network under a budget", positionals=("data",), recipes=True, shared=True
    ),
    "train": Verb(
        summary="train a given architecture, fresh or from weights",
        positionals=("architecture", "data"),
        recipes=True,
        shared=True,
    ),
    "evaluate": Verb(summary="score a run's network over a split", positionals=("run",), shared=True),
    "predict": Verb(summary="predict and draw images or clouds", positionals=("run", "inputs"), many=True),
    "report": Verb(summary="write a run's report.html", positionals=("run",)),
    "show": Verb(summary="show a run on the terminal", positionals=("run",)),
    "toycity": Verb(summary="write the built-in Toy City as files: lidar, camera, 3D boxes", positionals=("folder",)),
    "resume": Verb(summary="go on with a run that was stopped", positionals=("run",), shared=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_rank_zero = os.environ.get("RANK", "0") == "0"
    as_json = "--json" in words and is_rank_zero
    words = [word for word in words if word != "--json"]
    if as_json:
        rich.reconfigure(stderr=True)
    if not is_rank_zero:
        rich.reconfigure(quiet=True)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
            return 0
        if words[0] == "--version":
            print(f"hrnas {VERSION}")
            return 0
        result = run_verb(words[0], words[1:])
    except HrnasError as error:
        if is_rank_zero or isinstance(error, LostProcessError):  # all others are raised alike on all processes
            print(f"hrnas: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"hrnas: {error}. Check the path, its permissions and the space on its disk.", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        print(
            f"hrnas: A process that reads data died ({str(error).strip().rstrip('.')}); most often memory has run out. "
            "Free memory and go on with 'hrnas resume', or give fewer --workers to a new run.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        if is_rank_zero:
            print("hrnas: interrupted", file=sys.stderr)
        return 130
    finally:
        if as_json:
            rich.reconfigure(stderr=False)
    if as_json:
        print(json.dumps(to_plain(result), allow_nan=False))
    return 0


def run_verb(name: str, words: Sequence[str]) -> Mapping[str, Any]:
    """Parse the words after a verb and run it; return its result. Raises HrnasError for whatever the user can mend."""
    if name not in VERBS:
        raise InputError(f"Unknown verb '{name}'. {did_you_mean(name, VERBS)}")
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and not VERBS[name].shared:
        raise InputError(f"'hrnas {name}' runs in one process; {count} were started. Start it without torchrun.")
    prepare_process()
    module = importlib.import_module(f"hrnas.commands.{name}")
    kind = getattr(module, f"{name.capitalize()}Options")
    options = parse_options(name, VERBS[name], kind, words)
    with interruptible():
        result: Mapping[str, Any] = getattr(module, name)(options)
        if name in ("search", "train", "resume") and os.environ.get("RANK", "0") == "0":
            _close_run(result)
    return result


def prepare_process() -> None:
    """Set what torch reads when it loads, and the allocator, before either is used.

    oneDNN compiles a convolution for every shape and keeps 1,024 of them by default; a network of ragged widths has
    more, and would compile them again in every step. glibc gives large blocks back to the kernel at once and takes them
    again, page fault by page fault: a fifth of a training step. OpenMP's threads spin while they wait for each other;
    where anything else runs, our own data loading included, that makes steps several times slower.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32768")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of mallopt(3)
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(mmap_threshold, 32 << 20)
            libc.mallopt(trim_threshold, 2**31 - 1)
        except (OSError, AttributeError):
            return  # another C library, with rules of its own


def parse_options(name: str, verb: Verb, kind: type[Any], words: Sequence[str]) -> Any:
    """Return the options dataclass that the words mean, over the recipe's values, over the defaults."""
    words = _normalised(words, {field.name for field in fields(kind) if field.type in (bool, "bool")})
    parser = _parser(name, verb, kind)
    if verb.recipes:
        from hrnas.commands.recipes import recipe_values

        # A first reading for the recipe's name alone: what it gives need not be on the command line.
        first = _parser(name, verb, kind)
        for action in first._actions:
            action.required = False
        asks_for_help = {"-h", "--help"} & set(words)
        chosen = Namespace(data=None) if asks_for_help else _parse(first, name, words)
        if chosen.data is not None:
            values = recipe_values(chosen.recipe, chosen.data, kind)
            # As words before the user's: checked like them, and the later ones count.
            texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
            words = [*(f"--{key}={text}" for key, text in texts.items()), *words]
    given = _parse(parser, name, words)
    try:
        values = vars(parser.instantiate(given))
        return kind(**{field.name: values[field.name] for field in fields(kind)})
    except ValueError as error:
        raise InputError(" ".join(str(error).split())) from None


def _parser(name: str, verb: Verb, kind: type[Any]) -> ArgumentParser:
    from hrnas.commands import resolved  # noqa: F401 - makes InputSize known to the parser

    summary = (kind.__doc__ or "").split("\n")[0]
    # Abbreviated options would change their meaning when an option is added.
    parser = ArgumentParser(prog=f"hrnas {name}", description=summary, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="a config.yaml, of a run or your own")
    if verb.recipes:
        parser.add_argument("--recipe", type=str | None, default=None, help="defaults: a recipe's name or a YAML file")
    by_name = {field.name: field for field in fields(kind)}
    for position, positional in enumerate(verb.positionals):
        field = by_name[positional]
        many = verb.many and position == len(verb.positionals) - 1
        is_optional = field.default is not MISSING
        count = {"nargs": "*"} if many else {"nargs": "?", "default": field.default} if is_optional else {}
        parser.add_argument(positional, type=str if many else field.type, **count)
    parser.add_class_arguments(kind, None, skip=set(verb.positionals))
    for group in parser._action_groups:
        if group.title and (owner := re.fullmatch(r"<class '[\w.]*\.(\w+)Options'>", group.title)):
            group.title = owner[1].lower()
    for group in parser._action_groups:
        if (group.title or "").startswith("<class"):  # the parser's own heading, a Python name
            group.title = f"options of {name}"
    descriptions = _field_descriptions(kind)
    for action in parser._actions:
        if action.dest in descriptions:
            action.help = descriptions[action.dest]
    return parser


def _parse(parser: ArgumentParser, name: str, words: Sequence[str]) -> Namespace:
    try:
        return parser.parse_args(list(words))
    except (ArgumentError, ValueError, TypeError) as error:
        raise InputError(_plain_error(parser, name, words, " ".join(str(error).split()))) from None


def _plain_error(parser: ArgumentParser, name: str, words: Sequence[str], text: str) -> str:
    """Return the parser's complaint in one line that says what is needed."""
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    remedy = f"'hrnas {name} --help' shows all."
    for word in words:
        option = word.split("=")[0]
        if option.startswith("--") and option not in known:
            near = get_close_matches(option, known, n=1)
            question = f"Did you mean '{near[0]}'? " if near else ""
            return f"Unknown option '{option}' of hrnas {name}. {question}{remedy}"
    return f"{_readable(text).rstrip('.')}. {remedy}"


def _readable(text: str) -> str:
    """Return a complaint of jsonargparse about a value without the words of Python's type system."""
    text = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", text)
    if match := re.match(r'Parser key "([\w.]+)": (.*)', text):
        option, text = match.groups()
        own = re.search(r"- Not of type \w+: (.*?) - ", text)  # what the type itself says about the value
        text = f"Option '{option}': {own[1] if own else text}"
    return text


def _field_descriptions(kind: type[Any]) -> dict[str, str]:
    """Return the line a dataclass's docstring has for each of its fields, bases and nested options included."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        names: list[str] = []
        for line in (owner.__doc__ or "").splitlines():
            head, colon, text = line.strip().partition(": ")
            if colon and all(part.isidentifier() for part in head.split(", ")):
                names = head.split(", ")
                found |= dict.fromkeys(names, text.strip())
            elif names and line.strip():
                for name in names:
                    found[name] += f" {line.strip()}"
            else:
                names = []
    for field in fields(kind):
        if field.default_factory is not MISSING and hasattr(field.default_factory, "__dataclass_fields__"):
            inner = _field_descriptions(field.default_factory)
            found |= {f"{field.name}.{name}": text for name, text in inner.items()}
    return found


def _normalised(words: Sequence[str], flags: Collection[str]) -> list[str]:
    """Let options be written with hyphens, --batch-size for --batch_size, and flags without a value."""
    normalised = []
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            option = f"--{option[2:].replace('-', '_')}"
            if not equals and option[2:] in flags and following not in ("true", "false"):
                equals, value = "=", "true"
        normalised.append(option + equals + value)
    return normalised


def _close_run(result: Mapping[str, Any]) -> None:
    """Write the report of a finished run and show its tables."""
    from pathlib import Path

    from hrnas.reporting.report import write_report
    from hrnas.reporting.run_directory import read_run
    from hrnas.reporting.terminal import result_tables

    run = Path(result["run"])
    for network in result.get("networks", ()):
        if network["finished"] and network["folder"] != ".":
            write_report(run / network["folder"])
    for table in result_tables(read_run(run)):
        rich.print(table)
    console = rich.get_console()
    try:
        report = write_report(run)
    except OSError as error:
        raise InputError(
            f"{run} is finished, but its report.html could not be written ({error}). Free disk space and give "
            f"'hrnas report {run}'."
        ) from None
    for line in (f"Network: {run / 'best'}", f"Report:  {report}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _help() -> str:
    from hrnas.commands.recipes import known_recipes

    width = max(len(name) for name in VERBS)
    lines = [
        "hrnas: search and train a high-resolution network for your images under a budget",
        "",
        "  hrnas VERB ... [--json]     --json prints the result as one JSON object, last, on standard output",
        "",
        *(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()),
        "",
        "'hrnas VERB --help' shows a verb's options. Recipes: " + ", ".join(known_recipes()) + ".",
    ]
    return "\n".join(lines)
