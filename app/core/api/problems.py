"""Error answers: RFC 9457 problem details, `application/problem+json`."""

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import Response
from pydantic import BaseModel, Field
from starlette.types import Scope

from app.core.api.routes import route_of
from app.core.services.log import request_id

MEDIA_TYPE = "application/problem+json"

# Whatever was sent, an error has at most 4 KiB with its headers.
MAX_FAULTS = 20
MAX_FAULTS_SIZE = 2048
MAX_TEXT = 500
MAX_PATH = 256
MAX_DEPTH = 12
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_CUT_ESCAPE = re.compile(r"%[0-9A-F]?$")

PROBLEM_CODE = "kit.problem_code"
"""Scope key: the code of the answer, for the access log."""


class Problem(BaseModel):
    """Why a request was refused or failed. Kinds of errors may add members of their own."""

    type: str
    title: str
    status: int
    detail: str = Field(description="A sentence for people.")
    instance: str = Field(description="The path of the request, its first 256 characters.")
    code: str = Field(description="A stable word for programs.")
    request_id: str | None = Field(description="The request's line in the log has the same id.")


class Fault(BaseModel):
    """One thing that is wrong with the input."""

    loc: list[str | int] = Field(description="Where: body, query, path, header or cookie, then names and indexes.")
    msg: str
    type: str


class InputProblem(Problem):
    """Why the input was refused."""

    errors: list[Fault]


_TITLES: Mapping[int, str] = {
    **{status: status.phrase for status in HTTPStatus},
    # RFC 9110's; the standard library changed to them in Python 3.13.
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
}


def title_of(status: int) -> str:
    """Return the standard phrase of a status."""
    return _TITLES.get(status, "Error")


def problem(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """Make the answer for an error of `status`; `extra` adds members and replaces none."""
    scope[PROBLEM_CODE] = code
    content: dict[str, Any] = {
        "type": f"urn:problem-type:{code}",
        "title": title_of(status),
        "status": status,
        "detail": detail[:MAX_TEXT],
        "instance": _CUT_ESCAPE.sub("", quote(scope["path"][:MAX_PATH], errors="replace")[:MAX_PATH]),
        "code": code,
        "request_id": request_id(),
    }
    content = {**content, **(extra or {}), **content}
    response = Response(orjson.dumps(content, default=str), status, headers, MEDIA_TYPE)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers.setdefault("WWW-Authenticate", "Bearer")
    elif status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        response.headers.setdefault("Retry-After", "1")
    return response


def input_problem(
    scope: Scope,
    faults: Iterable[Mapping[str, Any]],
    *,
    code: str = "invalid_input",
    detail: str = "The input is not valid.",
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """Make a 422 that shows place, message and type of the first faults, never the input."""
    extra = {**(extra or {}), "errors": list(_fitting(faults))}
    return problem(scope, HTTPStatus.UNPROCESSABLE_ENTITY, code, detail, extra=extra)


def with_known_names(scope: Scope, fault: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fault with `?` in place of each name that the operation does not declare."""
    part, *names = fault["loc"]
    route = route_of(scope)
    known = route.field_names if route else ()
    return {**fault, "loc": [part, *(name if isinstance(name, int) or name in known else "?" for name in names)]}


def _fitting(faults: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    room = MAX_FAULTS_SIZE
    for fault in islice(faults, MAX_FAULTS):
        shown = _shown(fault)
        room -= len(orjson.dumps(shown))
        if room < 0:
            return
        yield shown


def _shown(fault: Mapping[str, Any]) -> dict[str, Any]:
    places = fault["loc"][:MAX_DEPTH]
    loc = [part if isinstance(part, int) or _NAME.fullmatch(str(part)) else "?" for part in places]
    return {"loc": loc, "msg": _message(fault)[:MAX_TEXT], "type": fault["type"]}


def _message(fault: Mapping[str, Any]) -> str:
    """Return the message without what pydantic quotes of the input: reasons of its parsers, the tag of a union."""
    message: str = fault["msg"]
    context = fault.get("ctx") or {}
    if fault["type"] == "union_tag_invalid":
        return f"The tag {context['discriminator']} is none of the expected: {context['expected_tags']}"
    for key in ("error", "reason"):
        # An exception here comes from a validator of ours, whose message is kept.
        if isinstance(reason := context.get(key), str):
            message = message.removesuffix(reason).rstrip(" ,:")
    return message
