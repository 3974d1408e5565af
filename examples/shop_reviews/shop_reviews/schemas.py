"""What goes in and out."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_ID = 2**63 - 1


def _in_utc(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)  # SQLite stores no zone; what was stored is UTC


class ReviewCreate(BaseModel):
    """A new review."""

    model_config = ConfigDict(extra="forbid")

    product_id: int = Field(ge=1, le=MAX_ID)
    stars: int = Field(ge=1, le=5)
    text: str = Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")


class ReviewRead(BaseModel):
    """A review."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    product_id: int
    author_id: int
    stars: int
    text: str
    created_at: Annotated[datetime, AfterValidator(_in_utc)]


class ReviewAnswer(BaseModel):
    """One review, in the service's envelope."""

    data: ReviewRead


class Rating(BaseModel):
    """What all think of a product."""

    reviews: int
    stars: float | None


class RatingAnswer(BaseModel):
    """A rating, in the service's envelope."""

    data: Rating
