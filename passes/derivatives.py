"""The derivative text of the operation table, ready to be emitted.

Each derivative is a .slp expression over the operands, the result `z` and the seed `g`. It is parsed once; emitting
it walks the small tree. `where(c, t, 0)` at its head is taken apart: c is where the derivative lives.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ..ir.arrays import Arrays, Operand
from ..ir.constants import BINARY, COMPARE
from ..ir.graph import Value
from ..ir.ops import Operation

Tree = str | float | tuple["str | Tree", ...]
"""A name, a number, or an operation and its operands."""


@dataclass(frozen=True)
class Derivative:
    """A derivative in one operand: `term` where `condition` is `holds`, zero elsewhere; everywhere if there is none.

    `linear`: the term is the seed times a finite constant, so a seed of zero gives zero whatever the operands are.
    """

    term: Tree
    condition: Tree | None
    holds: bool
    linear: bool


@cache
def derivatives(op: Operation) -> tuple[Derivative | None, ...]:
    """One for each operand; None where it is zero or there is none."""
    return tuple(None if text in (None, "0") else _parsed(text or "") for text in op.derivatives)


def _parsed(text: str) -> Derivative:
    tree = _tree(ast.parse(text, mode="eval").body)
    condition: Tree | None = None
    holds = True
    if isinstance(tree, tuple) and tree[0] == "where":
        if tree[3] == 0.0:
            condition, tree = tree[1], tree[2]
        elif tree[2] == 0.0:
            condition, tree, holds = tree[1], tree[3], False
    return Derivative(tree, condition, holds, _names(tree) == {"g"})


def _tree(node: ast.expr) -> Tree:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.BinOp):
        return (BINARY[type(node.op)][0], _tree(node.left), _tree(node.right))
    if isinstance(node, ast.UnaryOp):
        return ("negative", _tree(node.operand))
    if isinstance(node, ast.Compare):
        return (COMPARE[type(node.ops[0])][0], _tree(node.left), _tree(node.comparators[0]))
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name), ast.dump(node)
    return (node.func.id, *map(_tree, node.args))


def _names(tree: Tree) -> set[str]:
    if isinstance(tree, str):
        return {tree}
    if isinstance(tree, tuple):
        return set().union(*map(_names, tree[1:]))
    return set()


def emit(arrays: Arrays, tree: Tree, names: Mapping[str, Value]) -> Value:
    """The tree as operations over the values that its names stand for."""
    found = _emitted(arrays, tree, names)
    assert isinstance(found, Value)
    return found


def _emitted(arrays: Arrays, tree: Tree, names: Mapping[str, Value]) -> Operand:
    if isinstance(tree, str):
        return names[tree]
    if not isinstance(tree, tuple):
        return tree
    name = tree[0]
    assert isinstance(name, str)
    return arrays.elementwise(name, *(_emitted(arrays, t, names) for t in tree[1:]))
