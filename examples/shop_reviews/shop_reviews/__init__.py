"""Reviews of products, one by each user."""

from fastapi import APIRouter, FastAPI

from shop_reviews.routes import reviews_router


def register(app: FastAPI) -> APIRouter:
    """Called once, when the application is made; the router is mounted at /shop_reviews."""
    return reviews_router(app.state.kit)
