"""A key that administers roles reaches no further than its scopes, and is named where it is refused."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import AccessRefused
from app.auth.models import Role
from tests.api_keys.fixtures import AsKey
from tests.auth.fixtures import AsUser
from tests.core.log.capture import captured_log
from tests.utils import PublishedEvents


class TestGrants:
    async def test_of_an_administrator_it_grants_what_it_was_made_for(
        self, db: AsyncSession, as_admin: AsUser, as_user: AsUser, as_key: AsKey, published_events: PublishedEvents
    ) -> None:
        admin, ann = await as_admin(), await as_user(permissions=["users:read"])
        robot = await as_key(admin.user, scopes=["roles:read", "roles:write", "users:read"])
        (name,) = (await db.scalars(select(Role.name).where(Role.name.not_in(["admin", "member"])))).all()
        bob = (await as_user()).user
        assert (await robot.put(f"/api/v1/users/{bob.id}/roles/{name}")).status_code == 204
        made = await robot.post("/api/v1/roles", json={"name": "writer", "permissions": ["users:write"]})
        assert made.status_code == 403
        with captured_log() as lines:
            for user in (bob, ann.user, admin.user):
                for method, role in (("PUT", "admin"), ("DELETE", "admin")):
                    answer = await robot.request(method, f"/api/v1/users/{user.id}/roles/{role}")
                    assert (answer.status_code, answer.json()["code"]) == (403, "action_not_allowed")
        assert {line["user"] for line in lines.all("request")} == {f"api_key:{robot.key.id}"}
        assert all(line["missing"] for line in lines.all("request"))
        assert {event.user_id for event in published_events.of(AccessRefused)} <= {admin.user.id}
