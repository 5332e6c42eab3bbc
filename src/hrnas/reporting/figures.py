"""The figures of a report: inline SVG, or None where the run has nothing to show."""

from dataclasses import dataclass

from markupsafe import Markup

from hrnas.reporting import curves
from hrnas.reporting.bars import macs_bars
from hrnas.reporting.blocks import macs_by_place, transformers_by_place
from hrnas.reporting.control import changes_figure, control_figure
from hrnas.reporting.network import draw_network
from hrnas.reporting.networks import budget_networks
from hrnas.reporting.pareto import pareto_figure
from hrnas.reporting.record import RunRecord
from hrnas.reporting.tables import BlockTable


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of a report, by what they show."""

    loss: Markup | None
    metric: Markup | None
    control: Markup | None
    changes: Markup | None
    pareto_macs: Markup | None
    pareto_params: Markup | None
    network: Markup | None
    macs_by_stage: Markup | None
    macs_by_branch: Markup | None


def draw_figures(record: RunRecord, blocks: BlockTable | None) -> Figures:
    """Return every figure of the report; `blocks` is the record's block table."""
    network = by_stage = by_branch = None
    if record.architecture is not None and blocks is not None:
        network = draw_network(record.architecture, blocks.states, record.input_size)
        stages, branches = macs_by_place(record.architecture, record.input_size)
        full = macs_by_place(record.supernet, record.input_size) if record.supernet else (None, None)
        transformers = transformers_by_place(blocks.states)
        by_stage = macs_bars("MACs by stage", stages, full[0], transformers[0])
        by_branch = macs_bars("MACs by branch", branches, full[1], transformers[1])
    networks = budget_networks(record)
    by_params = any(network.target.params for network in networks)
    height, width = record.input_size
    return Figures(
        loss=curves.loss_curve(record),
        metric=curves.metric_curve(record),
        control=control_figure(record),
        changes=changes_figure(record),
        pareto_macs=pareto_figure(networks, record.metric, "macs", f"MACs at {height}×{width}"),
        pareto_params=pareto_figure(networks, record.metric, "params", "parameters") if by_params else None,
        network=network,
        macs_by_stage=by_stage,
        macs_by_branch=by_branch,
    )
