"""Reading scalar expressions: the inverse of ``str`` of egc.ir.expr, through Python's ``ast``.

Inside an index, integers, names and arithmetic are dims; what loads, casts or calls a scalar function is an
indirect index.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from egc.ir import expr as ir
from egc.ir.dims import Dim, DimError, parse_dim
from egc.ir.expr import Acc, Cast, Const, Expr, Index, IndexExpr, Load
from egc.ir.scalar import FUNCTIONS
from egc.ir.types import DTYPES

_DIM_CALLS = frozenset({"floordiv", "mod", "min", "max"})
# `and`, `or` and `not` are functions here and keywords in Python; a capital keeps the columns.
_KEYWORD_CALL = re.compile(r"\b(and|or|not)\(")
_SPECIAL = {"inf": float("inf"), "nan": float("nan")}


class TextError(ValueError):
    """A text form that cannot be read: ``line`` and ``column`` count from 1."""

    def __init__(self, why: str, line: int, column: int = 1) -> None:
        super().__init__(f"line {line}, column {column}: {why}")
        self.why, self.line, self.column = why, line, column


class ExprReader:
    """Reads the expressions of one kernel. ``dtypes`` has the element type of every buffer."""

    def __init__(self, dtypes: Mapping[str, str]) -> None:
        self._dtypes = dtypes
        self._text = ""
        self._line, self._column = 1, 1
        self._acc: str | None = None

    def expr(self, text: str, line: int, column: int, acc: str | None = None) -> Expr:
        """The expression ``text``, at ``line`` and ``column``; ``acc`` is the dtype of Acc, if any."""
        self._acc = acc
        return self._expr(self._parse(text, line, column))

    def indices(self, text: str, line: int, column: int) -> tuple[IndexExpr, ...]:
        """The entries of an index, ``text`` being what stands between its brackets."""
        self._acc = None
        # The tuple's brackets are ours: the text's columns start one further left.
        tree = self._parse(f"({text},)" if text.strip() not in ("", "()") else "()", line, column - 1)
        assert isinstance(tree, ast.Tuple)
        return tuple(self._index(node) for node in tree.elts)

    def _parse(self, text: str, line: int, column: int) -> ast.expr:
        stripped = text.lstrip()
        self._line, self._column = line, column + len(text) - len(stripped)
        self._text = _KEYWORD_CALL.sub(lambda m: f"{m[1].capitalize()}(", stripped.rstrip())
        try:
            return ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            raise TextError(
                f"not an expression: {error.msg}", line, self._column + max((error.offset or 1) - 1, 0)
            ) from None
        except (ValueError, RecursionError, MemoryError):
            raise TextError("not an expression", line, self._column) from None

    def _fail(self, why: str, node: ast.expr) -> TextError:
        # ast counts columns in bytes; the text before a node holds names and numbers, which are ASCII.
        return TextError(why, self._line, self._column + node.col_offset)

    def _expr(self, node: ast.expr) -> Expr:
        match node:
            case ast.Constant(value=bool(value)):
                return Const(value, "bool")
            case ast.Constant(value=int(value)):
                return Const(value, "int64")
            case ast.Constant(value=float(value)):
                return Const(value, "float32")
            case ast.Name(id=name) if name in _SPECIAL:
                return Const(_SPECIAL[name], "float32")
            case ast.UnaryOp(op=ast.USub()):
                return self._literal(node, None)
            case ast.Name(id="acc"):
                if self._acc is None:
                    raise self._fail("acc stands only in the result of a reduction", node)
                return Acc(self._acc)
            case ast.Subscript():
                return self._load(node)
            case ast.IfExp(test=test, body=ast.Subscript() as body, orelse=other):
                load = self._load(body)
                fallback = None
                if not (isinstance(other, ast.Constant) and other.value is None):
                    found = self._expr(other)
                    if not isinstance(found, Const):
                        raise self._fail("what stands for an element outside is a literal", other)
                    fallback = found
                return Load(load.buffer, load.index, load.dtype, tuple(self._guards(test)), fallback)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(node, name, args)
        raise self._fail("not an expression of egc", node)

    def _call(self, node: ast.expr, name: str, args: list[ast.expr]) -> Expr:
        if name == "index" and len(args) == 1:
            return Index(self._dim(args[0]))
        if name == "cast" and len(args) == 2:
            dtype = args[1].id if isinstance(args[1], ast.Name) else ""
            if dtype not in DTYPES:
                raise self._fail("cast needs an expression and a dtype", args[1])
            return Cast(self._expr(args[0]), dtype)
        if name in DTYPES and len(args) == 1:
            return self._literal(args[0], name)
        function = name.lower() if name in ("And", "Or", "Not") else name
        if function not in FUNCTIONS:
            raise self._fail(f"there is no scalar function {function!r}", node)
        try:
            return ir.call(function, *(self._expr(arg) for arg in args))
        except ValueError as error:
            if isinstance(error, TextError):
                raise
            raise self._fail(str(error), node) from None

    def _literal(self, node: ast.expr, dtype: str | None) -> Const:
        """A literal of ``dtype``; of float32 or int64, as it is spelled, where that is None."""
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                positive = self._literal(operand, dtype)
                return Const(-positive.value, positive.dtype)
            case ast.Name(id=name) if name in _SPECIAL:
                return Const(_SPECIAL[name], dtype or "float32")
            case ast.Constant(value=bool(value)):
                return Const(value, dtype or "bool")
            case ast.Constant(value=int(value)):
                return Const(value, dtype or "int64")
            case ast.Constant(value=float(value)):
                return Const(value, dtype or "float32")
        raise self._fail("not a literal", node)

    def _load(self, node: ast.Subscript) -> Load:
        if not isinstance(node.value, ast.Name):
            raise self._fail("only a buffer has elements", node)
        name = node.value.id
        if name not in self._dtypes:
            raise self._fail(f"there is no buffer {name!r}", node)
        entries = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return Load(name, tuple(self._index(entry) for entry in entries), self._dtypes[name])

    def _guards(self, test: ast.expr) -> list[tuple[Dim, Dim]]:
        conditions = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
        out = []
        for condition in conditions:
            match condition:
                case ast.Call(func=ast.Name(id="inside"), args=[dim, extent], keywords=[]):
                    out.append((self._dim(dim), self._dim(extent)))
                case _:
                    raise self._fail("a guard reads inside(dim, extent)", condition)
        return out

    def _index(self, node: ast.expr) -> IndexExpr:
        return self._dim(node) if _is_dim(node) else self._expr(node)

    def _dim(self, node: ast.expr) -> Dim:
        text = ast.get_source_segment(self._text, node) or ""
        try:
            return parse_dim(text)
        except DimError as error:
            raise self._fail(str(error), node) from None


def _is_dim(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int()) | ast.Name():
            return True
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_dim(operand)
        case ast.BinOp(left=left, right=right):
            return _is_dim(left) and _is_dim(right)
        case ast.Call(func=ast.Name(id=name), args=args):
            return name in _DIM_CALLS and all(map(_is_dim, args))
    return False
