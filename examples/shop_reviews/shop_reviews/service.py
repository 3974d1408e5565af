"""The rules. The session's owner commits."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from shop_reviews.kit import Kit
from shop_reviews.models import Review
from shop_reviews.schemas import Rating, ReviewCreate


class AlreadyReviewed(Exception):
    """The user has reviewed the product before."""


class ReviewService:
    """Writes reviews and sums them up."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._cache = kit.cache("shop_reviews")

    async def write(self, body: ReviewCreate, *, db: AsyncSession, author_id: int) -> Review:
        """Store a review and tell the service; AlreadyReviewed where there is one."""
        review = Review(**body.model_dump(), author_id=author_id)
        db.add(review)
        try:
            await db.flush()
        except IntegrityError as exc:
            raise AlreadyReviewed from exc
        self._kit.dispatch("review_written", {"product_id": review.product_id, "stars": review.stars})
        return review

    async def rating(self, product_id: int, *, db: AsyncSession) -> Rating:
        """The average, up to a minute old."""
        if (stored := await self._cache.get(f"rating:{product_id}")) is not None:
            return Rating.model_validate(stored)
        average = select(func.count(), func.avg(Review.stars)).where(Review.product_id == product_id)
        count, stars = (await db.execute(average)).one()
        rating = Rating(reviews=count, stars=None if stars is None else round(float(stars), 2))
        await self._cache.set(f"rating:{product_id}", rating, ttl=60)
        return rating
