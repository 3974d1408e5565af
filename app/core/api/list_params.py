"""List queries from the URL: `sort=id:desc,username:asc&filters=id:[1,2],username:bob&page=1&per_page=20`."""

import inspect
import re
from collections.abc import Iterable
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi import Query, Request
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from app.core.db import FilterParam, ListParams, SortOrder, SortParam
from app.core.db.column_values import ColumnValue, column_value
from app.core.db.list_params import DEFAULT_PER_PAGE, MAX_PAGE, MAX_PER_PAGE
from app.core.exceptions import InvalidInputError

MAX_SORTS = 5
MAX_FILTERS = 10
MAX_VALUES = 100

P = TypeVar("P", bound=ListParams)

# A filter is `field:value` or `field:[value,...]`; a backslash takes the character after it as it stands.
_FILTER = re.compile(
    r"(?P<field>[^:,]+):(?:\[(?P<list>(?:\\.|[^\\\]])*)\]|(?P<value>(?!\[)(?:\\.|[^\\,])+))(?=,|\Z)", re.DOTALL
)
_PIECE = re.compile(r"\\.|,|[^\\,]+", re.DOTALL)
_UNFIT = re.compile("[\x00\ud800-\udfff]")


def _plain_integer(value: Any) -> Any:
    """Digits only: pydantic would take 1.0, +1 and 1_0 too."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise PydanticCustomError("int_parsing", "Input should be a valid integer")
    return value


class ListParamsBuilder(Generic[P]):
    """A dependency that reads a list query into `params`, refusing everything `sort` and `filters` do not declare.

    What they declare is checked against the model's columns here, once, so a mistake stops the start. A query
    that does not fit is an InvalidInputError that names the parameter.
    """

    def __init__(self, params: type[P], sort: type[SortParam], filters: type[FilterParam]) -> None:
        self._params, self._sort, self._filter = params, sort, filters
        columns = params.model.__mapper__.columns
        self._sorts = _fields(sort, columns.keys())
        self._values = {name: column_value(columns[name]) for name in _fields(filters, columns.keys())}
        self.__signature__ = self._signature()

    async def __call__(self, request: Request, sort: str | None, filters: str | None, page: int, per_page: int) -> P:
        """Read the query of `request`."""
        _check_characters(request)
        return self._params(
            sort=() if sort is None else tuple(self._read_sorts(sort)),
            filters=() if filters is None else tuple(self._read_filters(filters)),
            page=page,
            per_page=per_page,
        )

    def _signature(self) -> inspect.Signature:
        """What FastAPI reads and documents: the parameters of `__call__` with this list's own fields."""
        sorts = (
            f"Sorts in their order, `field:asc` or `field:desc` (`asc` may be left out), at most {MAX_SORTS}. "
            f"Fields: {_names(self._sorts)}."
        )
        filters = (
            f"Filters that all must fit, `field:value` or `field:[value,value]`, at most {MAX_FILTERS} "
            f"with {MAX_VALUES} values. A comma inside a value is written `\\,`, a backslash `\\\\`. "
            f"Fields: {_names(self._values)}."
        )
        number = BeforeValidator(_plain_integer)
        declared: dict[str, tuple[Any, Any]] = {
            "request": (Request, inspect.Parameter.empty),
            "sort": (Annotated[str | None, Query(description=sorts)], None),
            "filters": (Annotated[str | None, Query(description=filters)], None),
            "page": (Annotated[int, Query(ge=1, le=MAX_PAGE), number], 1),
            "per_page": (Annotated[int, Query(ge=1, le=MAX_PER_PAGE), number], DEFAULT_PER_PAGE),
        }
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature(
            [inspect.Parameter(name, kind, annotation=hint, default=value) for name, (hint, value) in declared.items()]
        )

    def _read_sorts(self, text: str) -> Iterable[SortParam]:
        items = text.split(",")
        if len(items) > MAX_SORTS:
            raise _fault("sort", "too_many", f"at most {MAX_SORTS} sorts are allowed")
        seen: set[str] = set()
        for item in items:
            field, colon, order = item.partition(":")
            _check_field("sort", field, self._sorts, seen)
            if colon and order not in list(SortOrder):
                raise _fault("sort", "unknown_direction", f"{field}: the direction is asc or desc")
            yield self._sort(field=field, order=SortOrder(order or SortOrder.ASC))

    def _read_filters(self, text: str) -> Iterable[FilterParam]:
        seen: set[str] = set()
        values_left, position = MAX_VALUES, 0
        while position <= len(text):
            found = _FILTER.match(text, position)
            if found is None:
                raise _fault("filters", "invalid_syntax", "expected field:value or field:[value,...], comma between")
            if len(seen) == MAX_FILTERS:
                raise _fault("filters", "too_many", f"at most {MAX_FILTERS} filters are allowed")
            field = found["field"]
            _check_field("filters", field, self._values, seen)
            texts = _split(found["value"] if found["list"] is None else found["list"], found["list"] is not None)
            values_left -= len(texts)
            if values_left < 0:
                raise _fault("filters", "too_many", f"at most {MAX_VALUES} values are allowed")
            values = tuple(_convert(field, self._values[field], value) for value in texts)
            yield self._filter(field=field, value=values[0] if found["list"] is None else values)
            position = found.end() + 1


def _fields(param: type[SortParam] | type[FilterParam], columns: Iterable[str]) -> tuple[str, ...]:
    """The names in the Literal of `param.field`; anything that is no column is a TypeError."""
    annotation = param.model_fields["field"].annotation
    if get_origin(annotation) is not Literal:
        raise TypeError(f'{param.__name__}.field must be a Literal of column names, as Literal["id"]')
    names = get_args(annotation)
    if unknown := set(names) - set(columns):
        raise TypeError(f"{param.__name__}.field names no column: {', '.join(sorted(unknown))}")
    return names


def _names(fields: Iterable[str]) -> str:
    return ", ".join(f"`{field}`" for field in fields)


def _fault(parameter: str, kind: str, message: str) -> InvalidInputError:
    return InvalidInputError(errors=[{"loc": ["query", parameter], "msg": message, "type": kind}])


def _check_characters(request: Request) -> None:
    """Refuse a parameter given twice, and text no database takes: NUL, and what is not UTF-8.

    The raw query tells; in `request.query_params` a wrong byte has become a replacement character already.
    """
    raw = request.scope["query_string"].decode("latin-1")
    seen = set()
    for name, value in parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"):
        if name not in ("sort", "filters", "page", "per_page"):
            continue
        if name in seen:
            raise _fault(name, "repeated", "the parameter is given more than once")
        if _UNFIT.search(value):
            raise _fault(name, "invalid_characters", "the text holds characters that are not allowed")
        seen.add(name)


def _check_field(parameter: str, field: str, known: Iterable[str], seen: set[str]) -> None:
    if not field:
        raise _fault(parameter, "empty_item", "an item is empty")
    if field not in known:
        raise _fault(parameter, "unknown_field", f"a field is unknown; known are {', '.join(known)}")
    if field in seen:
        raise _fault(parameter, "duplicate_field", f"{field} is given more than once")
    seen.add(field)


def _split(text: str, is_list: bool) -> list[str]:
    """The values in `text`, without their backslashes."""
    values = [""]
    for piece in _PIECE.findall(text):
        if piece == "," and is_list:
            values.append("")
        else:
            values[-1] += piece[1:] if piece.startswith("\\") else piece
    return values


def _convert(field: str, value: ColumnValue, text: str) -> Any:
    if not text:
        raise _fault("filters", "empty_item", f"{field}: a value is empty")
    try:
        return value.convert(text)
    except ValueError as exc:
        raise _fault("filters", "invalid_value", f"{field}: {exc}") from exc
