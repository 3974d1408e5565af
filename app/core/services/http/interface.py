"""The contract of the HTTP client."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, TypedDict, Unpack

import httpx2

from app.core.process import ProcessService, Slot


class RequestOptions(TypedDict, total=False):
    """Options of a request beside its method and path; `timeout` is in seconds, for all attempts together."""

    path_params: Mapping[str, str | int]
    params: Mapping[str, Any]
    headers: Mapping[str, str]
    json: Any
    data: Mapping[str, Any]
    content: bytes
    idempotency_key: str
    expected: Collection[int]
    timeout: float


class HttpClientInterface(ProcessService):
    """Calls the services that `HTTP_INTEGRATIONS` names."""

    @abstractmethod
    async def request(
        self, integration: str, method: str, path: str, **options: Unpack[RequestOptions]
    ) -> httpx2.Response:
        """Send a request and return the whole answer.

        `path` begins with `/` and is a template: `/charges/{id}` takes `path_params={"id": 7}`, quoted, and is logged
        as it stands. An integration without a `base_url` takes a URL instead.

        A status of 400 or above that is not `expected` raises UpstreamError, no answer in time UpstreamTimeout, an open
        circuit, a 429 or a 503 UpstreamUnavailable, an address that must not be called RequestRefused. Retries
        idempotent requests only: GET, HEAD, OPTIONS, PUT, DELETE, and any other method with an `idempotency_key`,
        which is sent as a header.
        """

    async def get(self, integration: str, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """Send a GET request as `request` does. The methods below do the same with theirs."""
        return await self.request(integration, "GET", path, **options)

    async def post(self, integration: str, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        return await self.request(integration, "POST", path, **options)

    async def put(self, integration: str, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        return await self.request(integration, "PUT", path, **options)

    async def patch(self, integration: str, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        return await self.request(integration, "PATCH", path, **options)

    async def delete(self, integration: str, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        return await self.request(integration, "DELETE", path, **options)


current_http = Slot[HttpClientInterface]()
"""The HTTP client of this process."""
