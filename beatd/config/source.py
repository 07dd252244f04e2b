"""What a config says, and where in its text."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from beatd.config.settings import Place


@dataclass(frozen=True, slots=True)
class Raised:
    """Stands in an entry for a value that could not be made: it raised `error`."""

    error: Exception


Node: TypeAlias = ast.expr | ast.keyword


@dataclass(frozen=True)
class Source:
    """What a config says, and its text."""

    name: str
    """For people: `shop.config`, `/etc/beatd/config.py`, `shop:app`."""
    written: Mapping[str, object] = field(repr=False)
    """Names and values as they are written; some may be no settings."""
    file: str = ""
    text: str = field(default="", repr=False)
    app: object = field(default=None, repr=False)
    """The app that has the config, if it was read from one."""

    def locate(self, *path: str) -> Place | None:
        """Return the place of a setting, or of a key (of a key ...) in its value.

        For a key that is not in the text, as one that a loop makes, it is the place of
        the last part of `path` that is in the text. None without any text.
        """
        found = self._find(path)
        return self._place(found[0]) if found else None

    def locate_value(self, *path: str) -> Place | None:
        """Return the place of the value whose key `locate` returns."""
        found = self._find(path)
        return self._place(found[1] or found[0]) if found else None

    def repeated(self, setting: str) -> Iterator[tuple[str, Place, Place]]:
        """Yield each key that stands twice in a dict of the value, and both places."""
        _, value = self._assigned.get((setting,), (None, None))
        for literal in ast.walk(value) if value else ():
            first: dict[str, Node] = {}
            for word, key, _ in items(literal):
                if word in first:
                    yield word, self._place(first[word]), self._place(key)
                first[word] = key

    def line(self, number: int) -> str:
        """Return one line of the text, counted from 1; empty if there is none."""
        return self._lines[number - 1] if number <= len(self._lines) else ""

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def _assigned(self) -> "_Assignments":
        return assignments(ast.parse(self.text)) if self.text else {}

    def _find(self, path: tuple[str, ...]) -> tuple[Node, Node | None] | None:
        for length in range(len(path), 0, -1):
            if found := self._assigned.get(path[:length]):
                return _descend(*found, path[length:])
        return None

    def _place(self, node: Node) -> Place:
        line = self.line(node.lineno).encode()
        is_long = node.end_lineno != node.lineno or node.end_col_offset is None
        end = len(line) if is_long else node.end_col_offset
        # ast counts bytes; people, and the carets under the line, count characters.
        column, end_column = (len(line[:at].decode()) for at in (node.col_offset, end))
        return Place(self.file, node.lineno, column, end_column)


_Assignments: TypeAlias = dict[tuple[str, ...], tuple[Node, Node | None]]


def assignments(tree: ast.Module) -> _Assignments:
    """Return path -> (name, value) of each `name = value` and `name["key"] = value`.

    As in Python the last one counts. Functions and classes have names of their own.
    """
    found: _Assignments = {}
    for statement in _statements(tree):
        value = getattr(statement, "value", None)
        for target in _targets(statement):
            match target:
                case ast.Name(name):
                    found[(name,)] = (target, value)
                case ast.Subscript(ast.Name(name), ast.Constant(str(key))):
                    found[(name, key)] = (target, value)
    return found


def _statements(body: ast.AST) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(body):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, ast.expr):
            yield from _statements(child)


def _targets(statement: ast.stmt) -> list[ast.expr]:
    match statement:
        case ast.Assign(targets):
            return targets
        case ast.AnnAssign(target) | ast.AugAssign(target):
            return [target]
    return []


def items(node: ast.AST) -> Iterator[tuple[str, Node, Node]]:
    """Yield (word, key, value) of a dict literal, or of a call's keyword arguments."""
    match node:
        case ast.Dict(keys, values):
            for key, value in zip(keys, values, strict=True):
                match key:
                    case ast.Constant(str(word)):
                        yield word, key, value
        case ast.Call(keywords=keywords):
            for keyword in keywords:
                if keyword.arg:
                    yield keyword.arg, keyword, keyword.value


def _descend(
    key: Node, value: Node | None, path: tuple[str, ...]
) -> tuple[Node, Node | None]:
    """Follow `path` into the dicts of `value` as far as the text has them."""
    for part in path:
        shown = {word: (key, inner) for word, key, inner in items(value or key)}
        if part not in shown:
            break
        key, value = shown[part]
    return key, value
