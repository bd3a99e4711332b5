"""`slpc cost`: flops, bytes, roofline time and training memory of a program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from . import arguments, report

if TYPE_CHECKING:
    from .ir.graph import Graph
    from .passes.cost import Cost, RegionCost
    from .passes.devices import Device
    from .passes.pipeline import Fusion
    from .passes.training import TrainingMemory


@click.command(epilog="""\b
Examples:
  slpc cost programs/mlp.slp
  slpc cost programs/transformer.slp --grad --optimizer adam --device h100
  slpc cost programs/transformer.slp --grad -D T=4096 -D dtype=bf16 --device cpu --json

Devices: a100, h100, h200 with their makers' figures, and cpu, this machine as it is measured now.
Bytes are those of each operation's operands, read once, and results. The roofline time of an operation is the longer
of its flops at the device's rate and its bytes at its bandwidth.
""")
@arguments.program
@click.option("--grad", is_flag=True, help="The cost of value and gradient. --wrt, --of and --optimizer imply it.")
@arguments.derivative
@click.option("--optimizer", metavar="NAME", help="Count its state and its update: sgd, momentum, adam or adamw.")
@click.option("--state", "state", metavar="DTYPE", help="The dtype of the optimizer's state: the parameters' own.")
@click.option("--device", "device_name", metavar="NAME", help="Say the roofline time on a100, h100, h200 or cpu.")
@click.option("--top", type=click.IntRange(1), default=12, show_default=True, help="Kinds of operations to list.")
@arguments.fusion
@arguments.backend
@arguments.as_json
def cost(file: str, constants: dict[str, str], grad: bool, wrt: list[str] | None, of: str | None,
         optimizer: str | None, state: str | None, device_name: str | None, top: int, fuse: Fusion, backend: str,
         as_json: bool) -> None:
    """What a program costs: flops, bytes, time on a device, and with --grad the memory that training takes."""
    from . import api
    from .passes.cost import costs

    with report.progress(f"reading {file}"):
        graph = api.load(file, **constants)
        derived = grad or wrt is not None or of is not None or optimizer is not None
        with api.placed(graph.file):
            device = _device(device_name)
            by_blocks = _regions(graph, derived, wrt, of, api.fusion(fuse, backend), backend)
            graph = api.adjoint(graph, wrt, of) if derived else api.simplified(graph)
            training = _training(graph, optimizer or "sgd", state, backend) if derived else None
    found = costs(graph)
    if as_json:
        report.result(json.dumps(_as_json(graph, found, device, training, by_blocks)))
        return
    report.table(_rows(found, device, top))
    report.result("")
    report.table(_totals(found, device, by_blocks))
    if training is not None:
        report.result("")
        report.table(_memory(training, optimizer or "sgd", device))


def _regions(graph: Graph, derived: bool, wrt: list[str] | None, of: str | None, fused: Fusion,
             backend: str) -> list[RegionCost]:
    """The regions with which the backend runs the program, those of which masks cut work."""
    from . import api
    from .function import target_of
    from .passes.cost import regions
    from .passes.legalize import legalize

    target = target_of(backend)
    run = api.adjoint(graph, wrt, of, fused=fused) if derived else api.simplified(graph, fused=fused)
    return regions(legalize(run, target), target) if any(True for _ in run.regions()) else []


def _device(name: str | None) -> Device | None:
    from . import machine
    from .passes.devices import device_named

    if name is None:
        return None
    return machine.measure() if name.lower() == "cpu" else device_named(name)


def _training(gradient: Graph, optimizer: str, state: str | None, backend: str) -> TrainingMemory:
    from .function import backend_named
    from .ir.diagnostics import Fault, near
    from .ir.types import DTYPES
    from .passes.legalize import legalize
    from .passes.liveness import lives
    from .passes.tasks import tasks
    from .passes.training import training_memory
    from .passes.update import training_step

    if state is not None and (state not in DTYPES or not DTYPES[state].is_float):
        floats = [d.name for d in DTYPES.values() if d.is_float]
        raise Fault("E0409", f"the state's dtype is {' or '.join(floats)}, not '{state}'", near(state, floats))
    target = backend_named(backend).TARGET
    step = training_step(gradient, optimizer).graph
    seen = [tasks(legalize(graph, target), target) for graph in (gradient, step)]
    peak, step_peak = (lives(each, each.order).peak for each in seen)
    return training_memory(gradient, peak, step_peak, optimizer, DTYPES[state] if state is not None else None)


# As text -------------------------------------------------------------------------------------------------------

def _rows(found: Sequence[Cost], device: Device | None, top: int) -> list[list[str]]:
    """The table of operations: equal ones in one row, the most expensive first."""
    from .memory import human
    from .passes.roofline import arithmetic_seconds, seconds, transfer_seconds
    from .units import decimal

    def weight(members: Sequence[Cost]) -> tuple[float, ...]:
        time = sum(seconds(c, device) for c in members) if device is not None else 0.0
        return (time, sum(c.flops for c in members), sum(c.bytes for c in members))

    kinds: dict[tuple[Any, ...], list[Cost]] = {}
    for c in found:
        kinds.setdefault(_kind(c), []).append(c)
    ranked = sorted(kinds.items(), key=lambda item: weight(item[1]), reverse=True)
    heading = ["operation", "of", "runs", "flops", "bytes", "flop/B"] + ["time", "bound by"] * (device is not None)
    rows = [[report.faint(cell) for cell in [*heading, "first"]]]
    groups = [(*kind[:2], members) for kind, members in ranked[:top]]
    rest = [c for _, members in ranked[top:] for c in members]
    if rest:
        groups.append(("all others", "", rest))
    for name, operands, members in groups:
        flops, bytes_ = sum(c.flops for c in members), sum(c.bytes for c in members)
        row = [report.name(name), operands, f"{len(members)}", decimal(flops, "flop"), human(bytes_),
               f"{flops / bytes_:.3g}" if bytes_ else ""]
        if device is not None:
            arithmetic = sum(arithmetic_seconds(c, device) for c in members)
            transfer = sum(transfer_seconds(c, device) for c in members)
            row += [decimal(sum(seconds(c, device) for c in members), "s"),
                    "flops" if arithmetic > transfer else "bytes"]
        rows.append([*row, "" if members is rest else _place(members[0])])
    return rows


def _kind(c: Cost) -> tuple[Any, ...]:
    """Name and operands as the table shows them, and the type of the result: what equal operations have in common."""
    from .ir.graph import Constant

    operands = [str(v.type) for v in c.node.operands if not isinstance(v, Constant)]
    if c.node.op.elementwise or len(operands) > 3:
        operands = operands[:1]
    return c.node.op.name, ", ".join(operands) or str(c.node.result.type), c.node.result.type


def _place(c: Cost) -> str:
    value = c.node.result
    return f"{value.name}, line {value.span.line}" if value.span is not None else value.name


def _totals(found: Sequence[Cost], device: Device | None, by_blocks: Sequence[RegionCost]) -> list[list[str]]:
    from .memory import human
    from .passes.roofline import seconds, utilisation
    from .plan_report import masks
    from .units import decimal

    flops, bytes_ = sum(c.flops for c in found), sum(c.bytes for c in found)
    products = sum(c.flops for c in found if c.node.op.family == "product")
    rows = [["operations", f"{len(found):,}"],
            ["flops", decimal(flops, "flop") + (f", {products / flops:.1%} of it products" if products else "")],
            *([["masks", masks(by_blocks)]] if by_blocks else []),
            ["bytes", f"{human(bytes_)}: {human(sum(c.read for c in found))} read, "
                      f"{human(sum(c.written for c in found))} written"],
            ["intensity", f"{flops / bytes_ if bytes_ else 0.0:.3g} flop/B"]]
    if device is not None:
        elapsed = sum(seconds(c, device) for c in found)
        mfu = utilisation(found, device, elapsed)
        rows += [["roofline", f"{decimal(elapsed, 's')} on {device.title}: MFU {mfu:.1%}"],
                 ["device", f"{_rates(device)}; {decimal(device.bandwidth, 'B/s')}"],
                 ["", device.source]]
    return [[report.faint(row[0]), row[1]] for row in rows]


def _rates(device: Device) -> str:
    from .units import decimal

    return ", ".join(f"{dtype} {decimal(rate, 'flop/s')}" for dtype, rate in device.products.items())


def _memory(training: TrainingMemory, optimizer: str, device: Device | None) -> list[list[str]]:
    from .memory import human

    rows = [["parameters", human(training.parameters)],
            ["gradients", human(training.gradients)],
            [f"{optimizer}'s state", human(training.state)],
            ["activations", f"{human(training.activations)}, everything kept; slpc plan says what it could be"],
            ["data", human(training.data)],
            ["training", _share(training.total, device)],
            ["in one step", f"{_share(training.in_step, device)}: gradients end in their update, and with the "
                            f"activations take {human(training.step)}"]]
    return [[report.faint(row[0]), row[1]] for row in rows]


def _share(size: int, device: Device | None) -> str:
    """Bytes, and as a share of the device's memory."""
    from .memory import human

    if device is None or device.memory is None:
        return human(size)
    return f"{human(size)}, {100 * size / device.memory:.2g}% of the device's {human(device.memory)}"


# As JSON -------------------------------------------------------------------------------------------------------

def _as_json(graph: Graph, found: Sequence[Cost], device: Device | None,
             training: TrainingMemory | None, by_blocks: Sequence[RegionCost]) -> dict[str, Any]:
    """`operations` in the order of the program; `seconds` and `mfu` are null without a device."""
    from dataclasses import asdict

    from .passes.roofline import seconds, utilisation

    times = [seconds(c, device) if device is not None else None for c in found]
    elapsed = sum(t for t in times if t is not None)
    flops, bytes_ = sum(c.flops for c in found), sum(c.bytes for c in found)
    return {
        "program": graph.name, "flops": flops, "bytes": bytes_, "bytes_read": sum(c.read for c in found),
        "bytes_written": sum(c.written for c in found), "intensity": flops / bytes_ if bytes_ else 0.0,
        "seconds": elapsed if device is not None else None,
        "mfu": utilisation(found, device, elapsed) if device is not None else None,
        "device": device and {"name": device.name, "title": device.title, "bandwidth": device.bandwidth,
                              "products": {str(d): rate for d, rate in device.products.items()},
                              "memory": device.memory, "source": device.source},
        "masked": [{"region": r.region, "runs": r.runs, "flops": r.flops, "whole_flops": r.whole} for r in by_blocks],
        "training": training and {**asdict(training), "total": training.total, "in_step": training.in_step},
        "operations": [{"name": c.node.result.name, "operation": c.node.op.name, "type": str(c.node.result.type),
                        "flops": c.flops, "bytes_read": c.read, "bytes_written": c.written, "intensity": c.intensity,
                        "seconds": t, "line": c.node.result.span.line if c.node.result.span else None}
                       for c, t in zip(found, times, strict=True)],
    }
