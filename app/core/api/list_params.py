"""List queries from the URL: `sort=id:desc,username:asc&filters=id:[1,2],username:bob&page=1&per_page=20`."""

import inspect
import json
import re
from dataclasses import replace
from operator import getitem
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi import Query
from fastapi.requests import HTTPConnection
from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from app.core.api import list_docs
from app.core.api.list_grammar import Sort, read_filters, read_sorts
from app.core.configs import get_settings
from app.core.db import BaseModel, Cursor, CursorSeal, FilterParam, ListParams, SortOrder, SortParam
from app.core.db.column_values import UNTYPED, type_value
from app.core.db.keyset import can_be_key
from app.core.db.list_params import fault
from app.core.deps import configured

P = TypeVar("P", bound=ListParams)

_PARAMETERS = ("sort", "filters", "page", "per_page", "cursor")
_UNFIT = re.compile("[\x00\ud800-\udfff]")


def _plain_integer(value: Any) -> Any:
    """Digits only: pydantic would take 1.0, +1 and 1_0 too."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise PydanticCustomError("int_parsing", "Input should be a valid integer")
    return value


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
        self._narrow_lookups()
        default = params.model_fields["sort"].get_default(call_default_factory=True)
        self._default_sorts = [Sort(item.field, item.order) for item in default or ()]
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
        _check_characters(request)
        given: dict[str, Any] = {"page": page, "per_page": per_page}
        sorts = self._default_sorts
        if sort is not None:
            sorts = list(read_sorts(sort, self._sorts))
            given["sort"] = tuple(self._sort(field=item.field, order=item.order) for item in sorts)
        if filters is not None:
            given["filters"] = tuple(
                self._filter(field=item.field, value=item.value, lookup=item.lookup)
                for item in read_filters(filters, self._values)
            )
        if cursor is not None:
            given["cursor"] = self._read_cursor(request, cursor, sorts, filters)
        try:
            return self._params(**given)
        except ValidationError as exc:  # a rule of the subclass
            first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
            raise fault(str(next(iter(first["loc"]), "sort")), first["type"], first["msg"]) from exc

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
        self._keys = tuple(name for name in self._keys if name in columns and can_be_key(columns[name]))

    def _read_cursor(self, request: HTTPConnection, text: str, sorts: list[Sort], filters: str | None) -> Cursor:
        if "page" in request.query_params:
            raise fault("page", "page_with_cursor", "a cursor stands for the page: give one of the two")
        settings = configured(request, get_settings)
        scope = json.dumps([*self._key_of(sorts), filters])
        return Cursor(CursorSeal(settings.secret_key.get_secret_value().encode(), scope), text)

    def _key_of(self, sorts: list[Sort]) -> tuple[str, SortOrder]:
        if len(sorts) > 1:
            raise fault("sort", "too_many", "with a cursor at most one sort is allowed")
        field, order = sorts[0] if sorts else ("id", SortOrder.ASC)
        if field not in self._keys:
            known = ", ".join(self._keys)
            raise fault(
                "sort", "unfit_for_cursor", f"with a cursor the list cannot be sorted by {field}, but by {known}"
            )
        return field, order

    def _narrow_lookups(self) -> None:
        """Drop what the filter's `lookup` does not allow."""
        annotation = self._filter.model_fields["lookup"].annotation
        if get_origin(annotation) is Literal:
            allowed = frozenset(get_args(annotation))
            self._values = {
                name: replace(value, lookups=value.lookups & allowed) for name, value in self._values.items()
            }

    def _signature(self) -> inspect.Signature:
        """What FastAPI reads and documents: the parameters of `__call__` with this list's own fields."""
        sort, filters = list_docs.of_sort(self._sorts), list_docs.of_filters(self._values)
        cursor = list_docs.of_cursor([name for name in self._sorts if name in self._keys])
        declared: dict[str, tuple[Any, Any]] = {
            "request": (HTTPConnection, inspect.Parameter.empty),
            "sort": (Annotated[str | None, Query(description=sort.text, examples=sort.examples)], None),
            "filters": (Annotated[str | None, Query(description=filters.text, examples=filters.examples)], None),
            "page": self._number("page", list_docs.PAGE),
            "per_page": self._number("per_page", None),
            "cursor": (Annotated[str | None, Query(description=cursor)], None),
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


def _fields(param: type[SortParam] | type[FilterParam]) -> tuple[str, ...]:
    """The names in the Literal of `param.field`."""
    annotation = param.model_fields["field"].annotation
    if get_origin(annotation) is not Literal:
        raise TypeError(f'{param.__name__}.field must be a Literal of column names, as Literal["id"]')
    return get_args(annotation)


def _check_characters(request: HTTPConnection) -> None:
    """Refuse a parameter given twice, and text no database takes: NUL, and what is not UTF-8.

    The raw query tells; in `request.query_params` a wrong byte has become a replacement character already.
    """
    raw = request.scope["query_string"].decode("latin-1")
    seen = set()
    for name, value in parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"):
        if name not in _PARAMETERS:
            continue
        if name in seen:
            raise fault(name, "repeated", "the parameter is given more than once")
        if _UNFIT.search(value):
            raise fault(name, "invalid_characters", "the text holds characters that are not allowed")
        seen.add(name)
