"""The package alone."""

from typing import Any

import httpx
import pytest

from tests.standin import StandInKit

REVIEW = {"product_id": 7, "stars": 4, "text": "Does what it says."}


async def test_a_review_is_written_and_listed(client: httpx.AsyncClient, kit: StandInKit) -> None:
    written = await client.post("/shop_reviews", json=REVIEW)
    assert written.status_code == 201
    assert REVIEW.items() <= written.json()["data"].items()
    assert (await client.get("/shop_reviews")).json()["data"] == [written.json()["data"]]
    assert kit.sent == [("review_written", {"product_id": 7, "stars": 4})]


async def test_each_user_has_one_say(client: httpx.AsyncClient, kit: StandInKit) -> None:
    await client.post("/shop_reviews", json=REVIEW)
    again = await client.post("/shop_reviews", json=REVIEW)
    assert again.status_code == 409
    kit.user.id = 2
    assert (await client.post("/shop_reviews", json=REVIEW)).status_code == 201


@pytest.mark.parametrize("change", [{"stars": 6}, {"stars": 0}, {"text": ""}, {"product_id": 0}, {"author_id": 3}])
async def test_what_is_no_review_is_refused(client: httpx.AsyncClient, change: dict[str, Any]) -> None:
    assert (await client.post("/shop_reviews", json=REVIEW | change)).status_code == 422


async def test_the_rating_is_the_average_and_is_cached(client: httpx.AsyncClient, kit: StandInKit) -> None:
    for user_id, stars in enumerate([4, 5, 5], start=1):
        kit.user.id = user_id
        await client.post("/shop_reviews", json=REVIEW | {"stars": stars})
    rating = await client.get("/shop_reviews/ratings/7")
    assert rating.json() == {"data": {"reviews": 3, "stars": 4.67}}
    assert kit.caches["shop_reviews"].values == {"rating:7": {"reviews": 3, "stars": 4.67}}


async def test_a_product_without_a_review_has_no_stars(client: httpx.AsyncClient) -> None:
    assert (await client.get("/shop_reviews/ratings/8")).json() == {"data": {"reviews": 0, "stars": None}}
