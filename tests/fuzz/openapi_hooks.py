"""What schemathesis is told about this service: how to get a token, also after a call has ended the session.

Administrators may change or delete one another, so there are some to spare.
"""

import os
from typing import Any

import httpx
import schemathesis

API = os.environ["FUZZ_URL"] + "/api/v1"
FIRST = (os.environ["FUZZ_EMAIL"], os.environ["FUZZ_PASSWORD"])
SPARE = [(f"spare{number}@example.com", os.environ["FUZZ_PASSWORD"]) for number in range(9)]


def log_in(account: tuple[str, str]) -> str | None:
    """An access token, where the account can still be used."""
    answer = httpx.post(f"{API}/auth/login", data={"username": account[0], "password": account[1]})
    return str(answer.json()["access_token"]) if answer.is_success else None


def hire() -> None:
    """Make the spare administrators."""
    headers = {"Authorization": f"Bearer {log_in(FIRST)}"}
    for email, password in SPARE:
        account = {"email": email, "username": email.split("@")[0], "password": password}
        body = {**account, "is_verified": True, "is_superuser": True}
        httpx.post(f"{API}/users", json=body, headers=headers).raise_for_status()


@schemathesis.auth(refresh_interval=600)
class Administrator:
    """The token of one; asked for again where it was refused."""

    def __init__(self) -> None:
        hire()

    def get(self, case: "schemathesis.Case[Any]", context: schemathesis.AuthContext) -> str:
        """A token that works."""
        return next(token for token in map(log_in, [FIRST, *SPARE]) if token)

    def set(self, case: "schemathesis.Case[Any]", data: str, context: schemathesis.AuthContext) -> None:
        """Put it into the request."""
        headers: Any = case.headers
        headers["Authorization"] = f"Bearer {data}"
