"""What a config says, and where in its text."""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import TypeAlias

from beatd.config.settings import Place, Problem


@dataclass(frozen=True, slots=True)
class Raised:
    """Stands in an entry for a value that could not be made: it raised `error`."""

    error: Exception
    where: str = ""
    """The line of another module of the user's that raised it: ` (helper.py:2)`."""

    def __str__(self) -> str:
        return f"this raised {type(self.error).__name__}: {self.error}{self.where}"


Node: TypeAlias = ast.expr | ast.keyword

_LONGEST_TEXT = 1_000_000
"""Characters; a longer config was made by a program, and takes seconds to parse."""


def _nothing(word: str) -> Iterable["Source"]:
    return ()


@dataclass(frozen=True)
class Source:
    """What a config says, and its text."""

    name: str
    """For people: `shop.config`, `/etc/beatd/config.py`, `shop:app`."""
    written: Mapping[str, object] = field(repr=False)
    """Names and values as they are written; some may be no settings."""
    file: str = ""
    text: str = field(default="", repr=False)
    within: tuple[str, ...] = ()
    """The names of the object in the text that has them, if it is not the module."""
    more: Callable[[str], Iterable["Source"]] = field(default=_nothing, repr=False)
    """Returns other texts in which a name may be written, in the order to look."""
    spelled: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    """How names of `written` may be spelled in the texts, where it is not the same."""
    problems: Sequence[Problem] = field(default=(), repr=False)
    """What was found wrong when it was read: none of it keeps beatd from starting."""
    let_go: Callable[[str], object] = field(default=_nothing, repr=False)
    """Takes a value out of the module that has it, unless a function of the module
    looks at its schedules. Who asks for it later is told so."""
    app: object = field(default=None, repr=False)
    """The app that has the config, if it was read from one."""

    def locate(self, *path: str) -> Place | None:
        """Return the place of a setting, or of a key (of a key ...) in its value.

        For a key that is not in the text, as one that a loop makes, it is the place of
        the last part of `path` that is in the text. None without any text.
        """
        return next((text._place(key) for text, key, _ in self._found(path)), None)

    def locate_value(self, *path: str) -> Place | None:
        """Return the place of the value whose key `locate` returns."""
        found = self._found(path)
        return next((text._place(value or key) for text, key, value in found), None)

    def repeated(self, setting: str) -> Iterator[tuple[str, Place, Place]]:
        """Yield each key that stands twice in a dict of the value, and both places."""
        for text, key, value in self._found((setting,), longest=_LONGEST_TEXT):
            if _word_of(key) not in self._words(setting):
                continue
            for literal in ast.walk(value) if value else ():
                first: dict[str, Node] = {}
                for word, again, _ in items(literal):
                    if word in first:
                        yield word, text._place(first[word]), text._place(again)
                    first[word] = again

    def _words(self, name: str) -> Sequence[str]:
        return self.spelled.get(name, (name,))

    def _found(
        self, path: tuple[str, ...], longest: float = inf
    ) -> Iterator[tuple["Source", Node, Node | None]]:
        """Yield key and value at `path` in each text that has it, and that text."""
        first, *others = path
        for word in self._words(first):
            for text in (self, *self.more(word)):
                if word not in text.text or len(text.text) > longest:
                    continue  # most texts: parsing them takes time
                if found := text._find((*text.within, word, *others)):
                    yield text, *found

    def line(self, number: int) -> str:
        """Return one line of the text, counted from 1; empty if there is none."""
        return self._lines[number - 1] if number <= len(self._lines) else ""

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def _assigned(self) -> "_Assignments":
        try:
            return assignments(ast.parse(self.text))
        except SyntaxError:  # it was saved anew since it was executed
            return {}

    def _find(self, path: tuple[str, ...]) -> tuple[Node, Node | None] | None:
        for length in range(len(path), 0, -1):
            if found := self._assigned.get(path[:length]):
                return _descend(*found, path[length:])
        return None

    def _place(self, node: Node) -> Place:
        line = self.line(node.lineno).encode()
        begin, end = node.col_offset, node.end_col_offset
        is_long = node.end_lineno != node.lineno or end is None
        if is_long or end is None:
            end = len(line)
        match node:
            case ast.keyword(arg=str(word)):  # the name alone, not what follows
                end = begin + len(word.encode())
            case ast.Attribute(attr=word) if not is_long:  # and not what is before
                begin = end - len(word.encode())
        # ast counts bytes; people, and the carets under the line, count characters.
        column, end_column = (len(line[:at].decode()) for at in (begin, end))
        return Place(self.file, node.lineno, column, end_column)


_Assignments: TypeAlias = dict[tuple[str, ...], tuple[Node, Node | None]]


def assignments(tree: ast.Module | ast.ClassDef) -> _Assignments:
    """Return path -> (name, value) of each `name = value` and `name["key"] = value`.

    As in Python the last one counts. Functions have names of their own; those of a
    class come behind its own name. What is set in an app's `conf` counts as a name.
    """
    found: _Assignments = {}
    for statement in _statements(tree):
        if isinstance(statement, ast.ClassDef):
            inner = assignments(statement)
            found |= {(statement.name, *path): at for path, at in inner.items()}
            continue
        value = getattr(statement, "value", None)
        for target in _targets(statement):
            match target:
                case ast.Name(name):
                    found[(name,)] = (target, value)
                case ast.Attribute(conf, name) if _is_conf(conf):
                    found[(name,)] = (target, value)
                case ast.Subscript(ast.Name(name), ast.Constant(str(key))):
                    found[(name, key)] = (target, value)
                case ast.Subscript(ast.Attribute(conf, name), ast.Constant(str(key))):
                    if _is_conf(conf):
                        found[(name, key)] = (target, value)
                case ast.Subscript(conf, ast.Constant(str(name))) if _is_conf(conf):
                    found[(name,)] = (target, value)
        for word, key_node, inner_value in _updated(statement):
            found[(word,)] = (key_node, inner_value)
    return found


def _is_conf(node: ast.expr) -> bool:
    """Return whether this is `conf`, or `app.conf`."""
    match node:
        case ast.Name("conf") | ast.Attribute(attr="conf"):
            return True
    return False


def _updated(statement: ast.stmt) -> Iterator[tuple[str, Node, Node]]:
    """Yield what `app.conf.update(...)` sets, and what `app = Celery(...)` is given."""
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(conf, "update"), given) as call):
            if _is_conf(conf):
                for node in (*given, call):
                    yield from items(node)
        case ast.Assign(value=ast.Call(ast.Name("Celery" | "Beatd")) as call):
            yield from items(call)


def _word_of(key: Node) -> str:
    """Return the name that stands at the key of an assignment, or of an item."""
    match key:
        case ast.Name(word) | ast.Attribute(attr=word) | ast.keyword(arg=str(word)):
            return word
        case ast.Constant(str(word)) | ast.Subscript(slice=ast.Constant(str(word))):
            return word
    return ""


def _statements(body: ast.AST) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(body):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, ast.expr | ast.ClassDef):
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
