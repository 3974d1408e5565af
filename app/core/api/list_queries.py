"""List queries from the URL: `sort=id:desc,username:asc&filters=id:[1,2],username:bob&page=1&per_page=20`."""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import getitem
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

from fastapi import Query
from fastapi.requests import HTTPConnection
from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from app.core.db import BaseModel, FilterParam, ListParams, Lookup, SortOrder, SortParam
from app.core.db.column_values import UNTYPED, filter_value, type_value
from app.core.db.keyset import key_type
from app.core.db.list_params import fault

P = TypeVar("P", bound=ListParams)

MAX_SORTS = 5
MAX_FILTERS = 10
MAX_VALUES = 100

_PARAMETERS = ("sort", "filters", "page", "per_page", "cursor")
_SUFFIXES = {lookup.value: lookup for lookup in Lookup if lookup is not Lookup.EQ}
_SEVERAL = (Lookup.EQ, Lookup.NE)

# A filter is `field:value` or `field:[value,...]`; a backslash takes the character after it as it stands.
_FILTER = re.compile(
    r"(?P<field>[^:,]+):(?:\[(?P<list>(?:\\.|[^\\\]])*)\]|(?P<value>(?!\[)(?:\\.|[^\\,])+))(?=,|\Z)", re.DOTALL
)
_PIECE = re.compile(r"\\.|,|[^\\,]+", re.DOTALL)

_MEANINGS = {
    Lookup.NE: "not this value, or none of several; no value counts",
    Lookup.LT: "less",
    Lookup.LTE: "less or equal",
    Lookup.GT: "greater",
    Lookup.GTE: "greater or equal",
    Lookup.ILIKE: "a part of the text, in upper or lower case",
    Lookup.NULL: "`true` where there is no value, `false` where there is one",
}


class ListParamsBuilder(Generic[P]):
    """A dependency that reads a list query into `params`, refusing everything `sort` and `filters` do not declare.

    Where `params` has a model, what they declare is checked against its columns and the virtual fields here, once, so
    a mistake stops the start. A query that does not fit is an InvalidInputError that names the parameter.
    """

    def __init__(self, params: type[P], sort: type[SortParam], filters: type[FilterParam]) -> None:
        self._params, self._sort, self._filter = params, sort, filters
        self._sorts = _fields(sort)
        self._values = dict.fromkeys(_fields(filters), UNTYPED)
        self._keys = tuple(dict.fromkeys(("id", *self._sorts)))
        if params.model is not None:
            self._use_columns(params.model)
        lookup = filters.model_fields["lookup"].annotation
        if get_origin(lookup) is Literal:
            allowed = frozenset(get_args(lookup))
            self._values = {name: replace(one, lookups=one.lookups & allowed) for name, one in self._values.items()}
        self.__signature__ = self._signature()

    async def __call__(
        self,
        request: HTTPConnection,
        *,
        sort: str | None,
        filters: str | None,
        page: int,
        per_page: int,
        cursor: str | None,
    ) -> P:
        """Read the query of `request`."""
        for name in _PARAMETERS:
            if len(request.query_params.getlist(name)) > 1:
                raise fault(name, "repeated", "the parameter is given more than once")
        given: dict[str, Any] = {"page": page, "per_page": per_page, "cursor": cursor}
        if sort is not None:
            given["sort"] = tuple(self._read_sorts(sort))
        if filters is not None:
            given["filters"] = tuple(self._read_filters(filters))
        try:
            params = self._params(**given)
        except ValidationError as exc:  # a rule of the subclass
            first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
            raise fault(str(next(iter(first["loc"]), "sort")), first["type"], first["msg"]) from exc
        if cursor is not None:
            self._check_walk(request, params.sort or ())
        return params

    def _use_columns(self, model: type[BaseModel]) -> None:
        """Check the fields against the columns, and read values as the columns' types."""
        columns, virtual = model.__mapper__.columns, self._params.virtual
        if clash := virtual.keys() & set(columns.keys()):
            raise TypeError(f"{self._params.__name__}.virtual names columns: {', '.join(sorted(clash))}")
        types = {name: column.type for name, column in columns.items()} | dict(virtual)
        for param, names in ((self._sort, self._sorts), (self._filter, self._values)):
            if unknown := set(names) - set(types):
                raise TypeError(f"{param.__name__}.field names no column: {', '.join(sorted(unknown))}")
        self._values = {name: type_value(name, types[name]) for name in self._values}
        self._keys = tuple(name for name in self._keys if name in columns and key_type(columns[name]))

    def _check_walk(self, request: HTTPConnection, sorts: Sequence[SortParam]) -> None:
        if "page" in request.query_params:
            raise fault("page", "page_with_cursor", "a cursor stands for the page: give one of the two")
        if len(sorts) > 1:
            raise fault("sort", "too_many", "with a cursor at most one sort is allowed")
        field = sorts[0].field if sorts else "id"
        if field not in self._keys:
            known = ", ".join(self._keys)
            raise fault(
                "sort", "unfit_for_cursor", f"with a cursor the list cannot be sorted by {field}, but by {known}"
            )

    def _read_sorts(self, text: str) -> Iterator[SortParam]:
        """Read `field:desc,field`."""
        items = text.split(",")
        if len(items) > MAX_SORTS:
            raise fault("sort", "too_many", f"at most {MAX_SORTS} sorts are allowed")
        seen: set[str] = set()
        for item in items:
            field, colon, order = item.partition(":")
            _check_field("sort", field, self._sorts)
            _check_new("sort", field, seen)
            if colon and order not in list(SortOrder):
                raise fault("sort", "unknown_direction", f"{field}: the direction is asc or desc")
            yield self._sort(field=field, order=SortOrder(order or SortOrder.ASC))

    def _read_filters(self, text: str) -> Iterator[FilterParam]:
        """Read `field:value,field__gte:value,field:[value,value]`."""
        seen: set[str] = set()
        values_left, position = MAX_VALUES, 0
        while position <= len(text):
            found = _FILTER.match(text, position)
            if found is None:
                raise fault("filters", "invalid_syntax", "expected field:value or field:[value,...], comma between")
            if len(seen) == MAX_FILTERS:
                raise fault("filters", "too_many", f"at most {MAX_FILTERS} filters are allowed")
            name, listed = found["field"], found["list"]
            field, lookup = self._field_and_lookup(name)
            _check_new("filters", name, seen)
            if listed is not None and lookup not in _SEVERAL:
                raise fault("filters", "single_value", f"{name} takes a single value")
            texts = _split(found["value"], is_list=False) if listed is None else _split(listed, is_list=True)
            values_left -= len(texts)
            if values_left < 0:
                raise fault("filters", "too_many", f"at most {MAX_VALUES} values are allowed")
            if "" in texts:
                raise fault("filters", "empty_item", f"{name}: a value is empty")
            value = filter_value(field, lookup, texts[0] if listed is None else texts, self._values[field])
            yield self._filter(field=field, value=value, lookup=lookup)
            position = found.end() + 1

    def _field_and_lookup(self, name: str) -> tuple[str, Lookup]:
        if name in self._values:
            return name, Lookup.EQ
        field, _, suffix = name.rpartition("__")
        if field not in self._values or suffix not in _SUFFIXES:
            _check_field("filters", name, self._values)
        return field, _SUFFIXES[suffix]

    def _signature(self) -> inspect.Signature:
        """Return what FastAPI reads and documents: the parameters of `__call__` with this list's own fields."""
        declared: dict[str, tuple[Any, Any]] = {
            "request": (HTTPConnection, inspect.Parameter.empty),
            "sort": (Annotated[str | None, self._sort_query()], None),
            "filters": (Annotated[str | None, self._filters_query()], None),
            "page": self._number("page", "The number of the page. Not with `cursor`."),
            "per_page": self._number("per_page", None),
            "cursor": (Annotated[str | None, self._cursor_query()], None),
        }
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature(
            [inspect.Parameter(name, kind, annotation=hint, default=value) for name, (hint, value) in declared.items()]
        )

    def _number(self, name: str, description: str | None) -> tuple[Any, Any]:
        """A page or a size, with the bounds and the default of the class."""
        field = self._params.model_fields[name]
        query = Query(description=field.description or description)
        parts = (field.annotation, *field.metadata, query, BeforeValidator(_plain_integer))
        return getitem(Annotated, parts), field.get_default(call_default_factory=True)

    def _sort_query(self) -> Any:
        first, last = self._sorts[0], self._sorts[-1]
        text = (
            f"Sorts in their order, `field:asc` or `field:desc` (`asc` may be left out), at most {MAX_SORTS}. "
            f"No value counts as the greatest. Fields: {_names(self._sorts)}."
        )
        several = [f"{last}:desc,{first}"] if first != last else []
        return Query(description=text, examples=[first, f"{first}:desc", *several])

    def _filters_query(self) -> Any:
        lines, examples = [], []
        for lookup, meaning in _MEANINGS.items():
            if able := [name for name, value in self._values.items() if lookup in value.lookups]:
                fields = "" if len(able) == len(self._values) else f": {_names(able)}"
                lines.append(f"- `__{lookup}` ({meaning}){fields}")
                if lookup in (Lookup.GTE, Lookup.ILIKE, Lookup.NULL):
                    examples.append(f"{able[-1]}__{lookup}:{self._example(able[-1], lookup)}")
        first = next(iter(self._values))
        example = self._example(first, Lookup.EQ)
        text = (
            f"Filters that all must fit, `field:value` or `field:[value,value]`, at most {MAX_FILTERS} "
            f"with {MAX_VALUES} values. A comma inside a value is written `\\,`, a backslash `\\\\`. "
            f"Fields: {_names(self._values)}. A suffix compares otherwise:\n\n" + "\n".join(lines)
        )
        return Query(description=text, examples=[f"{first}:{example}", f"{first}:[{example},{example}]", *examples])

    def _example(self, field: str, lookup: Lookup) -> str:
        return re.sub(r"([\\,\[\]])", r"\\\1", self._values[field].example_of(lookup))

    def _cursor_query(self) -> Any:
        able = [name for name in self._sorts if name in self._keys]
        text = (
            "Empty for the first page, then `next_cursor` or `prev_cursor` of an answer, with the same `sort` and "
            "`filters`. Nothing is counted, and no row is missed or shown twice because others come and go. "
            f"Takes no sort (by `id` then) or one by: {_names(able) or 'none'}."
        )
        return Query(description=text)


def _plain_integer(value: Any) -> Any:
    """Take digits only: pydantic would take 1.0, +1 and 1_0 too."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise PydanticCustomError("int_parsing", "Input should be a valid integer")
    return value


def _fields(param: type[SortParam] | type[FilterParam]) -> tuple[str, ...]:
    """The names in the Literal of `param.field`."""
    annotation = param.model_fields["field"].annotation
    if get_origin(annotation) is not Literal:
        raise TypeError(f'{param.__name__}.field must be a Literal of column names, as Literal["id"]')
    return get_args(annotation)


def _names(fields: Iterable[str]) -> str:
    return ", ".join(f"`{field}`" for field in fields)


def _check_field(parameter: str, field: str, known: Iterable[str]) -> None:
    if not field:
        raise fault(parameter, "empty_item", "an item is empty")
    if field not in known:
        raise fault(parameter, "unknown_field", f"a field is unknown; known are {', '.join(known)}")


def _check_new(parameter: str, field: str, seen: set[str]) -> None:
    if field in seen:
        raise fault(parameter, "duplicate_field", f"{field} is given more than once")
    seen.add(field)


def _split(text: str, *, is_list: bool) -> list[str]:
    """Return the values in `text`, without their backslashes."""
    values = [""]
    for piece in _PIECE.findall(text):
        if piece == "," and is_list:
            values.append("")
        else:
            values[-1] += piece[1:] if piece.startswith("\\") else piece
    return values
