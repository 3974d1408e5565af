"""The public keys of access tokens, outside the API's prefix, where RFC 8615 has others look for them."""

from fastapi import APIRouter
from fastapi import Response as HTTPResponse
from pydantic import BaseModel

from app.auth.deps import Config
from app.core.api import public

router = APIRouter(tags=["auth"], dependencies=[public])


class KeySet(BaseModel):
    """A JWK Set (RFC 7517 section 5)."""

    keys: list[dict[str, str]]


@router.get("/.well-known/jwks.json")
async def read_keys(config: Config, response: HTTPResponse) -> KeySet:
    """The public keys that verify access tokens; none where they are signed with HS256."""
    response.headers["Cache-Control"] = "public, max-age=300"
    return KeySet(keys=config.access_tokens.public_keys())
