"""`/`, `/openapi.json` and `/docs`: Swagger UI from this machine, without a content delivery network."""

import base64
import hashlib
import re
from collections.abc import Mapping
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from app.core.identity import public

_FOLDER = Path(str(files("fastapi_swagger.resources")))
_ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)

PAGE = "/docs"
DOCUMENT = "/openapi.json"

router = APIRouter(include_in_schema=False, dependencies=[public])


def add_docs(app: FastAPI) -> None:
    """Serve the pages that describe `app`."""
    app.include_router(router)


def add_index(app: FastAPI, links: Mapping[str, str]) -> None:
    """Have `GET /` say what this is and where to go: `links` by name, paths of this service."""

    async def index(request: Request) -> dict[str, str]:
        """What this is, and where to go."""
        about, root = request.app, _root(request)
        return {"name": about.title, "version": about.version} | {name: root + path for name, path in links.items()}

    app.add_api_route("/", index, include_in_schema=False, dependencies=[public])


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


@router.get(DOCUMENT)
async def document(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    return JSONResponse(_placed_at(request.app.openapi(), _root(request)))


@router.get(PAGE)
async def docs(request: Request) -> HTMLResponse:
    """The page where every operation can be tried."""
    app: FastAPI = request.app
    root = _root(request)
    page = get_swagger_ui_html(
        openapi_url=f"{root}{DOCUMENT}",
        title=f"{app.title} API",
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon-32x32.png",
        swagger_ui_parameters={"persistAuthorization": True, "displayRequestDuration": True, "filter": True},
    )
    page.headers["Content-Security-Policy"] = _policy(bytes(page.body).decode())
    return page


@router.get("/docs/{asset}")
async def docs_asset(asset: str) -> FileResponse:
    """A file of Swagger UI."""
    if asset not in _ASSETS:
        raise HTTPException(404)
    return FileResponse(_FOLDER / asset, headers={"Cache-Control": "public, max-age=86400"})


def _placed_at(document: dict[str, Any], root_path: str) -> dict[str, Any]:
    """The document as it is true below `root_path`.

    The addresses of log-ins are completed too: as paths they would be read from the top of the host (RFC 3986 5.2).
    """
    if not root_path:
        return document
    document = {**document, "servers": [{"url": root_path}], "components": deepcopy(document.get("components", {}))}
    for scheme in document["components"].get("securitySchemes", {}).values():
        for flow in scheme.get("flows", {}).values():
            for key in ("tokenUrl", "refreshUrl", "authorizationUrl"):
                if flow.get(key, "").startswith("/"):
                    flow[key] = root_path + flow[key]
    return document


def _policy(html: str) -> str:
    """Only our own files and exactly the page's own start script may run."""
    digests = (hashlib.sha256(script.encode()).digest() for script in _INLINE.findall(html))
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
    )
