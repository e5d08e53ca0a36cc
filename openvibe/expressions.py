"""Small expressions over state fields, such as `50 <= score < 80`: read into a tree, checked, and never evaluated as
Python."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openvibe.errors import RunError

_ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "len": len, "min": min, "max": max, "round": round, "abs": abs, "sum": sum, "lower": lambda text: str(text).lower(),
}  # fmt: skip
#: YAML's spelling of three constants.
_WORDS = {"true": True, "false": False, "null": None}
_SHAPES = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Constant, ast.Name, ast.Load,
    ast.List, ast.Tuple, ast.Subscript, ast.Call, ast.IfExp, *_ARITHMETIC, *_COMPARISONS,
)  # fmt: skip
#: Texts and lists grow by multiplication without end; numbers do not.
_MOST_LETTERS = 500


@dataclass(frozen=True)
class Expression:
    """An expression, ready to be worked out on any state. Calling it does that."""

    text: str
    tree: ast.expr

    @property
    def names(self) -> frozenset[str]:
        """The state fields that it looks at."""
        called = {id(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call)}
        found = (node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and id(node) not in called)
        return frozenset(found) - set(_WORDS)

    def __call__(self, state: Mapping[str, Any]) -> Any:
        """Return its value.

        Raises:
            RunError: the state lacks a field, or its values do not go together.
        """
        try:
            return _value(self.tree, state)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            seen = {name: state.get(name) for name in sorted(self.names)}
            raise RunError(f"{self.text!r} cannot be worked out with {seen!r:.200}: {error}") from error


def read(text: str) -> Expression:
    """Read an expression: fields, numbers, texts and lists; `and or not in`, comparisons, arithmetic, `a if b else c`,
    `field["key"]`, and the functions len, min, max, round, abs, sum and lower.

    Raises:
        ValueError: it is none, or uses something else; the text says what.
    """
    if len(text) > _MOST_LETTERS:
        raise ValueError(f"an expression has {_MOST_LETTERS} letters at most; write a handler instead")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no expression: {error.msg}") from error
    for problem in _problems(tree):
        raise ValueError(f"{text!r}: {problem}")
    return Expression(text, tree.body)


def _problems(tree: ast.Expression) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, _SHAPES):
            yield f"{type(node).__name__} is not allowed; write a handler for that"
        elif isinstance(node, ast.Constant) and not isinstance(node.value, (str, int, float, bool, type(None))):
            yield f"{node.value!r} is not allowed"
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
            if name not in _CALLS or node.keywords:
                yield f"{name}(…) is not known; there are: {', '.join(_CALLS)}"


def _value(node: ast.expr, state: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _WORDS[name] if name in _WORDS and name not in state else state[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, state) for item in items]
        case ast.BoolOp(op=joint, values=parts):
            return _joined(parts, state, until=isinstance(joint, ast.Or))
        case ast.UnaryOp(op=sign, operand=operand):
            return _ARITHMETIC[type(sign)](_value(operand, state))
        case ast.BinOp(left=left, op=sign, right=right):
            return _ARITHMETIC[type(sign)](*_numbers(_value(left, state), sign, _value(right, state)))
        case ast.Compare():
            return _compared(node, state)
        case ast.IfExp(test=test, body=body, orelse=other):
            return _value(body if _value(test, state) else other, state)
        case ast.Subscript(value=value, slice=key):
            return _value(value, state)[_value(key, state)]
        case ast.Call(func=ast.Name(id=name), args=args):
            return _CALLS[name](*(_value(arg, state) for arg in args))
    raise ValueError(f"{ast.unparse(node)} is not allowed")


def _joined(parts: list[ast.expr], state: Mapping[str, Any], *, until: bool) -> Any:
    """Return the first value that is as true as `until` says, else the last: as Python's `or` and `and` do."""
    value: Any = None
    for part in parts:
        value = _value(part, state)
        if bool(value) is until:
            break
    return value


def _numbers(left: Any, sign: ast.operator, right: Any) -> tuple[Any, Any]:
    if not isinstance(sign, ast.Add) and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
        raise TypeError(f"{type(left).__name__} and {type(right).__name__} are no two numbers")
    return left, right


def _compared(node: ast.Compare, state: Mapping[str, Any]) -> bool:
    left = _value(node.left, state)
    for sign, right in zip(node.ops, node.comparators, strict=True):
        value = _value(right, state)
        if not _COMPARISONS[type(sign)](left, value):
            return False
        left = value
    return True
