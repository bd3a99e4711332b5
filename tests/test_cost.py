"""Costs against counts by hand, the roofline against its definition, and `slpc cost` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import slpc
from slpc.cli import main
from slpc.ir.diagnostics import Fault, SlpError
from slpc.ir.types import bf16, f32
from slpc.passes.cost import costs, flops
from slpc.passes.devices import DEVICES, device_named
from slpc.passes.roofline import arithmetic_seconds, seconds, transfer_seconds, utilisation
from slpc.passes.training import training_memory
from slpc.units import decimal, size

MLP = str(Path(__file__).parent.parent / "programs" / "mlp.slp")
PRODUCT = """
m, k, n = 30, 20, 10

def f(A: f32[m, k], b: f32[n], *, B: f32[k, n]):
    return sum(exp(A @ B + b))
"""


def test_flops_and_bytes_are_those_of_a_count_by_hand() -> None:
    found = costs(slpc.parse(PRODUCT))
    assert [c.node.op.name for c in found] == ["matmul", "add", "exp", "sum"]
    assert [c.flops for c in found] == [2 * 30 * 20 * 10, 300, 10 * 300, 300]
    assert [c.read for c in found] == [4 * (600 + 200), 4 * (300 + 10), 4 * 300, 4 * 300]
    assert [c.written for c in found] == [4 * 300, 4 * 300, 4 * 300, 4]
    assert found[0].intensity == 12000 / (4 * (600 + 200 + 300))


def test_an_operand_is_read_once_and_a_gather_reads_what_it_takes() -> None:
    square, = costs(slpc.parse("def f(x: f64[7]):\n    return x * x"))
    assert square.read == 56
    row, = costs(slpc.parse("def f(E: f32[1000, 8], *, i: i64[5]):\n    return E[i]"))
    assert (row.read, row.written) == (5 * 8 * 4 + 5 * 8, 5 * 8 * 4)


@pytest.mark.parametrize("name", DEVICES)
def test_the_roofline_is_the_longer_of_arithmetic_and_transfer(name: str) -> None:
    device = DEVICES[name]
    large = costs(slpc.parse("n = 8192\ndef f(A: bf16[n, n], B: bf16[n, n]):\n    return A @ B"))[0]
    assert seconds(large, device) == arithmetic_seconds(large, device) == 2 * 8192**3 / device.products[bf16]
    assert utilisation([large], device, seconds(large, device)) == 1.0
    assert utilisation([large], device, 2 * seconds(large, device)) == 0.5
    thin = costs(slpc.parse("n = 8192\ndef f(A: f32[n, n], x: f32[n]):\n    return A @ x"))[0]
    assert seconds(thin, device) == transfer_seconds(thin, device) == 4 * (8192**2 + 2 * 8192) / device.bandwidth


def test_an_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(Fault) as caught:
        device_named("h10")
    assert caught.value.code == "E0607" and "'h100'" in caught.value.hint
    assert device_named("H100") is DEVICES["h100"]


def test_training_memory_by_its_terms() -> None:
    gradient = slpc.adjoint(slpc.parse(PRODUCT))
    parameters = 4 * (600 + 10)
    for optimizer, moments in (("sgd", 0), ("momentum", 1), ("adam", 2)):
        found = training_memory(gradient, 10_000, 8_000, optimizer)
        assert (found.parameters, found.gradients, found.state) == (parameters, parameters, moments * parameters)
        assert found.activations == 10_000 - parameters and found.data == 800
        assert found.total == 10_000 + parameters + moments * parameters + 800
        assert found.in_step == 8_000 + parameters + moments * parameters + 800
    half = slpc.adjoint(slpc.parse(PRODUCT.replace("f32", "bf16")))
    assert training_memory(half, 10_000, 8_000, "adam", f32).state == 2 * parameters
    with pytest.raises(Fault) as caught:
        training_memory(gradient, 10_000, 8_000, "adm")
    assert caught.value.code == "E0609" and "'adam'" in caught.value.hint


def test_quantities() -> None:
    assert [size(t) for t in ("64MB", "64 MiB", "1.5kB", "1KiB", "4096", "2GiB", "7B")] == [
        64_000_000, 64 << 20, 1500, 1024, 4096, 2 << 30, 7]
    for wrong in ("", "lots", "-1MB", "1iB", "1MBB", "MB", "nan", "1e3"):
        with pytest.raises(SlpError) as caught:
            size(wrong)
        assert caught.value.code == "E0606"
    assert [decimal(x, "flop") for x in (0, 7, 999.7, 1234, 99.94e6, 2.1e10, 1.5e25)] == [
        "0 flop", "7 flop", "1.00 kflop", "1.23 kflop", "99.9 Mflop", "21.0 Gflop", "15000000 Eflop"]
    assert [decimal(x, "s") for x in (1.5, 0.0123, 4.7e-7, 2e-12)] == ["1.5 s", "12.3 ms", "470 ns", "0.00 ns"]


def run(*words: str) -> str:
    found = CliRunner().invoke(main, list(words))
    assert found.exit_code == 0, found.stderr
    return found.stdout


def test_the_command_prints_what_the_api_counts() -> None:
    found = json.loads(run("cost", MLP, "--grad", "--optimizer", "adam", "--device", "h100", "--json"))
    gradient = slpc.adjoint(slpc.load(MLP))
    assert found["flops"] == flops(gradient) == sum(o["flops"] for o in found["operations"])
    assert found["bytes"] == found["bytes_read"] + found["bytes_written"]
    assert found["seconds"] == pytest.approx(sum(o["seconds"] for o in found["operations"]))
    assert 0 < found["mfu"] < 1 and found["device"]["name"] == "h100"
    assert found["training"]["state"] == 2 * found["training"]["parameters"]
    plain = json.loads(run("cost", MLP, "--json"))
    assert plain["training"] is None and plain["seconds"] is None
    text = run("cost", MLP, "--grad", "--optimizer", "adam", "--device", "h200")
    assert "adam's state" in text and "H200" in text and "MFU" in text


def test_the_line_of_a_library_function_is_that_of_its_call() -> None:
    graph = slpc.parse("def f(x: f64[3]):\n    y = softmax(x)\n    return sum(y)")
    assert {node.result.span.line for node in graph.nodes if node.result.span} == {2, 3}


def test_errors_of_the_command() -> None:
    for words, code in ((["--device", "h1000"], "E0607"), (["--optimizer", "adm"], "E0609"),
                        (["--grad", "--state", "i32"], "E0409")):
        found = CliRunner().invoke(main, ["cost", MLP, *words])
        assert found.exit_code == 2 and f"error[{code}]" in found.stderr, found.stderr


@pytest.mark.parametrize(("mask", "share"), [("j <= i", 0.5), ("(j <= i) & (j > i - 16)", 16 / 2048)])
def test_what_masks_cut_is_shown(mask: str, share: float, tmp_path: Path) -> None:
    """By `cost` and by `plan`, in the region and in its adjoint: half of a causal mask, of a window what is in it."""
    file = tmp_path / "masked.slp"
    file.write_text(f"""
T, d = 2048, 8
def f(Q: f32[T, d], K: f32[T, d], V: f32[T, d]):
    i, j = arange(T)[:, None], arange(T)[None, :]
    R = softmax(where({mask}, Q @ K.T, -inf)) @ V
    return sum(max(R, axis=0))
""")
    for command in ("cost", "plan"):
        words = [command, str(file), "--json", *(["--grad"] if command == "cost" else ["--budget", "0"])]
        found = json.loads(CliRunner().invoke(main, words).output)["masked"]
        assert len(found) == 2
        for region in found:
            assert share < region["flops"] / region["whole_flops"] < share + 0.12
        assert "masks" in CliRunner().invoke(main, [w for w in words if w != "--json"]).output
    unfused = CliRunner().invoke(main, ["cost", str(file), "--grad", "--no-fuse", "--json"])
    assert json.loads(unfused.output)["masked"] == []
