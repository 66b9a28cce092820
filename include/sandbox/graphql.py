"""Reads the part of GraphQL that queries of the Search API are written in."""

import json
import re
from dataclasses import dataclass
from typing import cast

# Deeper nesting is no query of ours, and must not exhaust Python's stack.
MAX_DEPTH = 12

_TOKEN = re.compile(
    r"""(?P<ignored>[ \t\r\n,\ufeff]+|\#[^\r\n]*)
    |(?P<mark>\.\.\.|[!$():=@\[\]{|}])
    |(?P<name>[_A-Za-z][_0-9A-Za-z]*)
    |(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![._0-9A-Za-z]))
    |(?P<text>"(?!"")(?:[^"\\\r\n]|\\.)*")""",
    re.VERBOSE,
)
_CONSTANTS = {"true": True, "false": False, "null": None}


class QueryError(Exception):
    """A query that GraphQL refuses. ``kind`` is graphql-java's name of the failure."""

    def __init__(self, kind: str, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        if self.kind == "InvalidSyntax":
            return f"Invalid Syntax : {self.reason}"
        return f"Validation error ({self.kind}@[{self.path}]) : {self.reason}"


class EnumName(str):
    """A bare name used as a value, as ``telephony`` or ``endedTime``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """``$name`` used as a value."""

    name: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """A declared variable: ``Long!`` has the kind Long and is required."""

    kind: str
    is_required: bool
    default: object = None


@dataclass(frozen=True, slots=True)
class Selected:
    """A selected field; values of arguments are plain, or an EnumName or a Variable."""

    name: str
    arguments: dict[str, object]
    selection: tuple["Selected", ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One query: the variables it declares and the fields it selects."""

    declarations: dict[str, Declaration]
    selection: tuple[Selected, ...]


def parse_query(text: str) -> Query:
    """The query of a document.

    Aliases, directives, fragments, block strings and several operations are not read.

    Raises:
        QueryError: It is not a query, or one of a kind that is not read.
    """
    return _Parser(text).document()


def used_variables(value: object) -> set[str]:
    """Names of the variables anywhere within an argument's value."""
    if isinstance(value, Variable):
        return {value.name}
    within: list[object] = []
    if isinstance(value, dict):
        within = list(cast("dict[str, object]", value).values())
    elif isinstance(value, list):
        within = cast("list[object]", value)
    return set[str]().union(*map(used_variables, within))


def put_variables(value: object, given: dict[str, object]) -> object:
    """The value with every variable replaced by what was given for it."""
    if isinstance(value, Variable):
        return given[value.name]
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {name: put_variables(each, given) for name, each in members.items()}
    if isinstance(value, list):
        return [put_variables(each, given) for each in cast("list[object]", value)]
    return value


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise QueryError("InvalidSyntax", f"unexpected character at offset {at}.")
            if found.lastgroup and found.lastgroup != "ignored":
                self._tokens.append((found.lastgroup, found.group()))
            at = found.end()
        self._tokens.append(("end", "the end"))
        self._place = 0

    def document(self) -> Query:
        declarations: dict[str, Declaration] = {}
        if self._next_is("query"):
            self._take()
            if self._tokens[self._place][0] == "name":
                self._take()
            if self._next_is("("):
                declarations = self._declarations()
        selection = self._selection(0)
        if self._tokens[self._place][0] != "end":
            raise self._unexpected()
        return Query(declarations, selection)

    def _declarations(self) -> dict[str, Declaration]:
        found: dict[str, Declaration] = {}
        self._take("(")
        while not self._next_is(")"):
            self._take("$")
            name = self._name()
            self._take(":")
            kind, default = self._name(), None
            is_required = self._skip("!")
            if self._skip("="):
                default = self._value(0)
            if name in found:
                raise QueryError("InvalidSyntax", f"the variable '{name}' is declared twice.")
            found[name] = Declaration(kind, is_required, default)
        self._take(")")
        return found

    def _selection(self, depth: int) -> tuple[Selected, ...]:
        self._go_deeper(depth)
        self._take("{")
        found: list[Selected] = []
        while not found or not self._next_is("}"):
            name = self._name()
            arguments: dict[str, object] = {}
            selection: tuple[Selected, ...] = ()
            if self._skip("("):
                arguments = self._members(")", depth)
            if self._next_is("{"):
                selection = self._selection(depth + 1)
            found.append(Selected(name, arguments, selection))
        self._take("}")
        return tuple(found)

    def _members(self, closing: str, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while not self._skip(closing):
            name = self._name()
            self._take(":")
            if name in found:
                raise QueryError("InvalidSyntax", f"'{name}' is given twice.")
            found[name] = self._value(depth + 1)
        return found

    def _value(self, depth: int) -> object:
        self._go_deeper(depth)
        if self._skip("$"):
            return Variable(self._name())
        if self._skip("{"):
            return self._members("}", depth)
        if self._skip("["):
            items: list[object] = []
            while not self._skip("]"):
                items.append(self._value(depth + 1))
            return items
        kind, text = self._tokens[self._place]
        if kind == "name":
            self._take()
            return _CONSTANTS[text] if text in _CONSTANTS else EnumName(text)
        if kind not in ("number", "text"):
            raise self._unexpected()
        try:
            value: object = json.loads(text)
        except ValueError:
            raise self._unexpected() from None
        self._take()
        return value

    def _name(self) -> str:
        kind, text = self._tokens[self._place]
        if kind != "name":
            raise self._unexpected()
        self._place += 1
        return text

    def _next_is(self, text: str) -> bool:
        # Its quotes keep a text apart from a mark or a name, its blank keeps "the end" apart.
        return self._tokens[self._place][1] == text

    def _skip(self, text: str) -> bool:
        if not self._next_is(text):
            return False
        self._place += 1
        return True

    def _take(self, text: str | None = None) -> None:
        if text is not None and not self._next_is(text):
            raise self._unexpected()
        self._place += 1

    def _unexpected(self) -> QueryError:
        kind, text = self._tokens[self._place]
        # What a text holds may be personal, and the reason is noted.
        shown = "a text" if kind == "text" else text[:40]
        return QueryError("InvalidSyntax", f"unexpected {shown}.")

    def _go_deeper(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise QueryError("InvalidSyntax", "nested too deep.")
