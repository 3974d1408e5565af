"""Path operations. They are made by a function, as their dependencies come with the kit."""

from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, HTTPException, Path, status
from sqlalchemy.ext.asyncio import AsyncSession

from shop_reviews.kit import Kit, User
from shop_reviews.models import Review
from shop_reviews.schemas import MAX_ID, RatingAnswer, ReviewAnswer, ReviewCreate, ReviewRead
from shop_reviews.service import AlreadyReviewed, ReviewService

LISTED = ("id", "product_id", "author_id", "stars", "created_at")


def reviews_router(kit: Kit) -> APIRouter:
    """The routes of the package."""
    router = APIRouter(tags=["shop_reviews"])
    service = ReviewService(kit)
    review_page = kit.list_of(Review, ReviewRead, sort=LISTED, filters=LISTED)

    DBSession: TypeAlias = Annotated[AsyncSession, Depends(kit.db_session, scope="function")]
    ActiveUser: TypeAlias = Annotated[User, Depends(kit.active_user)]

    @router.get("", response_model=kit.page_of(ReviewRead))
    async def list_reviews(page: Annotated[Any, Depends(review_page)]) -> Any:
        """A page of the reviews."""
        return page

    @router.post("", status_code=status.HTTP_201_CREATED)
    async def write_review(body: ReviewCreate, db: DBSession, user: ActiveUser) -> ReviewAnswer:
        """Review a product, once."""
        try:
            review = await service.write(body, db=db, author_id=user.id)
        except AlreadyReviewed as exc:
            raise HTTPException(status.HTTP_409_CONFLICT, "You have reviewed this product before.") from exc
        return ReviewAnswer(data=ReviewRead.model_validate(review))

    @router.get("/ratings/{product_id}")
    async def read_rating(product_id: Annotated[int, Path(ge=1, le=MAX_ID)], db: DBSession) -> RatingAnswer:
        """What all think of a product."""
        return RatingAnswer(data=await service.rating(product_id, db=db))

    return router
