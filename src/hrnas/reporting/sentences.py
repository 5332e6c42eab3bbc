"""What a run came to, in sentences."""

from collections.abc import Sequence

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import format_count
from hrnas.costing.analytic import Cost
from hrnas.reporting.networks import BudgetNetwork, budget_networks
from hrnas.reporting.record import RunRecord
from hrnas.reporting.tables import (
    REASONS,
    BlockTable,
    CutTable,
    format_change,
    format_duration,
    format_percent,
    format_score,
)


def sentence(record: RunRecord) -> str:
    """Return the result in one sentence."""
    found, supernet = record.found_cost, record.supernet_cost
    networks = budget_networks(record)
    height, width = record.input_size
    time = f" in {format_duration(record.seconds)}" if record.seconds is not None else ""
    if not record.finished:
        state = "The search" if record.is_search else "The training"
        text = f"{state} has come to step {record.last_step:,} of {record.steps:,}{time}"
        if networks:
            aside = [network for network in networks if network.cost is not None]
            text += f"; {len(aside)} of {len(networks)} networks are set aside"
        if found is not None:
            text += f"; as it stands the network has {format_count(found.macs)} MACs at {height}×{width}"
        return text + "."
    assert found is not None
    steps = f"after {record.last_step or record.steps:,} steps{time}."
    start = f"From a supernet of {format_count(supernet.macs)} MACs the" if supernet else "The"
    if networks:
        text = f"{start} search found {_several(networks)} at {height}×{width}{_their_scores(networks, record.metric)}"
        return f"{text}, {steps}{_waiting(networks)}"
    cost = f"{format_count(found.macs)} MACs at {height}×{width}"
    if record.is_search:
        text = f"{start} search found a network of {cost}{_budget_words(record, found)}"
    else:
        text = f"The training gave a network of {cost}"
    scores = [f"{score.metric} {format_score(score.score, 3)} on {score.split}" for score in record.scores.values()]
    if scores:
        text += f", that reaches {' and '.join(scores)}"
    return f"{text}, {steps}"


def _budget_words(record: RunRecord, found: Cost) -> str:
    """Return what share of the budget the network takes, beginning with a comma; each limit's where there are two."""
    target = record.target
    macs = format_percent(found.macs / target.macs) if target is not None and target.macs else ""
    params = format_percent(found.params / target.params) if target is not None and target.params else ""
    if macs and params:
        return f", {macs} of the budget of MACs and {params} of that of parameters"
    if params:
        return f" and {format_count(found.params)} parameters, {params} of the budget"
    return f", {macs} of the budget" if macs else ""


def _several(networks: Sequence[BudgetNetwork]) -> str:
    """Return "3 networks of 2G, 1G and 500M MACs"; parameters where those are what is budgeted."""
    costs = [network.cost for network in networks if network.cost is not None]
    by_params = all(network.target.macs is None and network.target.params for network in networks)
    counts = [format_count(cost.params if by_params else cost.macs) for cost in costs]
    return f"{len(costs)} networks of {_listed(counts)} {'parameters' if by_params else 'MACs'}"


def _their_scores(networks: Sequence[BudgetNetwork], metric: str) -> str:
    if any(not network.finished or network.score is None for network in networks):
        return ""
    return f", that reach {metric} {_listed([format_score(network.score, 3) for network in networks])} on validation"


def _waiting(networks: Sequence[BudgetNetwork]) -> str:
    """Return a sentence, after a space, that names the networks still to be finished; nothing when there are none."""
    names = [network.target.name for network in networks if not network.finished]
    if not names:
        return ""
    if len(names) == 1:
        return f" The network of {names[0]} is still to be finished."
    return f" The networks of {_listed(names)} are still to be finished."


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def cut_sentence(table: CutTable) -> str:
    """Return how much the cuts changed the output, in one sentence."""
    count = f"{len(table.cuts)} cut{'s' if len(table.cuts) > 1 else ''}"
    if table.largest is None:
        return f"{count}; how much each changed the output was not measured."
    where = f"at step {table.largest.step:,}, {REASONS.get(table.largest.reason, table.largest.reason)}"
    change = format_change(table.largest.output_change)
    if len(table.cuts) == 1:
        return f"1 cut, which changed the output by {change} ({where})."
    return f"{count}; none changed the output by more than {change} ({where})."


def activation_sentence(architecture: Architecture) -> str:
    """Return which activation the network has and how many blocks squeeze-excitation, in one sentence."""
    squeezed = [block.squeeze > 0 for _, block in architecture.blocks()]
    text = f"The activation is {architecture.activation}"
    if any(squeezed):
        text += f"; {sum(squeezed)} of {len(squeezed)} blocks have squeeze-excitation"
    return f"{text}."


def transformer_sentence(record: RunRecord, blocks: BlockTable) -> str:
    """Return what is left of the transformers and what they cost, in one sentence; empty without any."""
    if not blocks.has_tokens:
        return ""
    left, widest = blocks.tokens, blocks.tokens_widest
    if not left.transformers:
        return f"None of {widest.transformers} transformers is left."
    text = f"{left.transformers} of {widest.transformers} transformers are left, with {left.tokens:,}"
    if record.supernet is not None:
        text += f" of {widest.tokens:,}"
    text += f" tokens and {format_count(blocks.transformer_macs)} MACs"
    total = record.found_cost
    return f"{text}, {format_percent(blocks.transformer_macs / total.macs)} of the network's." if total else f"{text}."
