"""The bare application: FastAPI, the ORM, python-jose and passlib as their tutorials use them, and nothing else.

It reads and writes the tables of the service with the same statements and checks the same tokens, but has no
limits, logs, ids, problem documents, list grammar or layers. What the service costs beyond it is the price of those.
"""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from jose import JWTError, jwt
from passlib.context import CryptContext
from pydantic import BaseModel, ConfigDict
from sqlalchemy import BigInteger, DateTime, ForeignKey, SmallInteger, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

KEY = os.environ["JWT_SECRET_KEY"]
NAME = os.environ["DOMAIN"]
ALGORITHM = "HS256"
CLAIMS = {f"require_{claim}": True for claim in ("exp", "iat", "iss", "aud", "sub", "jti")}

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)
passwords = CryptContext(
    schemes=["argon2"], argon2__type="ID", argon2__memory_cost=19 * 1024, argon2__time_cost=2, argon2__parallelism=1
)
bearer = OAuth2PasswordBearer(tokenUrl="/login")
app = FastAPI()


def now() -> datetime:
    """Now, zone-aware."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of the tables."""

    type_annotation_map = {int: BigInteger, datetime: DateTime(timezone=True)}  # noqa: RUF012  declared so

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class User(Base):
    """An account."""

    __tablename__ = "auth_users"

    email: Mapped[str]
    email_key: Mapped[str]
    username: Mapped[str]
    username_key: Mapped[str]
    password_hash: Mapped[str]
    status_id: Mapped[int] = mapped_column(SmallInteger)
    is_verified: Mapped[bool]
    is_superuser: Mapped[bool]
    deleted_at: Mapped[datetime | None]


class AuthSession(Base):
    """A login."""

    __tablename__ = "auth_sessions"

    user_id: Mapped[int] = mapped_column(ForeignKey("auth_users.id"))
    device: Mapped[str]
    address: Mapped[str]
    last_used_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class RefreshToken(Base):
    """What carries a login on."""

    __tablename__ = "auth_refresh_tokens"

    session_id: Mapped[int] = mapped_column(ForeignKey("auth_sessions.id"))
    token_hash: Mapped[str]
    salt: Mapped[str]
    expires_at: Mapped[datetime]


class UserRead(BaseModel):
    """A user as the API shows it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    username: str
    status_id: int
    is_verified: bool
    created_at: datetime
    updated_at: datetime


class UserPage(BaseModel):
    """A page of users."""

    data: list[UserRead]
    total: int | None = None
    next: int | None = None


async def session() -> AsyncIterator[AsyncSession]:
    """The session of a request."""
    async with sessions() as db:
        yield db


DB = Annotated[AsyncSession, Depends(session)]


async def current_user(db: DB, token: Annotated[str, Depends(bearer)]) -> User:
    """Whose token this is: its login and the account must be alive."""
    try:
        claims = jwt.decode(token, KEY, algorithms=[ALGORITHM], audience=NAME, issuer=NAME, options=CLAIMS)
    except JWTError as exc:
        raise HTTPException(401) from exc
    statement = (
        select(User)
        .join(AuthSession, AuthSession.user_id == User.id)
        .where(
            AuthSession.id == int(claims["sid"]),
            AuthSession.revoked_at.is_(None),
            AuthSession.expires_at > now(),
            User.id == int(claims["sub"]),
            User.deleted_at.is_(None),
        )
    )
    user = (await db.scalars(statement)).one_or_none()
    if user is None:
        raise HTTPException(401)
    return user


CurrentUser = Annotated[User, Depends(current_user)]


@app.get("/health")
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@app.get("/profile", response_model=UserRead)
async def profile(user: CurrentUser) -> Any:
    """The caller's account."""
    return user


@app.get("/users", response_model=UserPage)
async def users(
    user: CurrentUser,
    db: DB,
    page: Annotated[int, Query(ge=1)] = 1,
    per_page: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Any:
    """A page of users and how many there are."""
    if not user.is_superuser:
        raise HTTPException(403)
    found = select(User).where(User.deleted_at.is_(None))
    rows = (await db.scalars(found.order_by(User.id).limit(per_page).offset((page - 1) * per_page))).all()
    total = await db.scalar(select(func.count()).select_from(found.with_only_columns(User.id).subquery()))
    return {"data": rows, "total": total}


@app.get("/users/after", response_model=UserPage)
async def users_after(user: CurrentUser, db: DB, after: int, per_page: Annotated[int, Query(ge=1, le=100)] = 20) -> Any:
    """A page of users by key."""
    if not user.is_superuser:
        raise HTTPException(403)
    found = select(User).where(User.deleted_at.is_(None), User.id > after).order_by(User.id)
    rows = (await db.scalars(found.limit(per_page + 1))).all()
    return {"data": rows[:per_page], "next": rows[per_page - 1].id if len(rows) > per_page else None}


@app.post("/login")
async def login(form: Annotated[OAuth2PasswordRequestForm, Depends()], db: DB) -> dict[str, Any]:
    """Open a session."""
    known = select(User).where(User.deleted_at.is_(None))
    user = (await db.scalars(known.where(User.username_key == form.username.lower()))).one_or_none()
    await db.commit()  # as the service does: no transaction is held while the password is checked
    if user is None or not await asyncio.to_thread(passwords.verify, form.password, user.password_hash):
        raise HTTPException(401)
    await db.scalars(known.where(User.id == user.id, User.password_hash == user.password_hash).with_for_update())
    ends = now() + timedelta(days=30)
    opened = AuthSession(user_id=user.id, device="bench", address="127.0.0.1", expires_at=ends)
    db.add(opened)
    await db.flush()
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    db.add(RefreshToken(session_id=opened.id, token_hash=digest, salt=secrets.token_hex(16), expires_at=ends))
    await db.commit()
    issued = int(now().timestamp())
    claims = {"iss": NAME, "aud": NAME, "sub": str(user.id), "sid": str(opened.id), "iat": issued, "exp": issued + 900}
    access_token = jwt.encode({**claims, "jti": secrets.token_urlsafe(16)}, KEY, algorithm=ALGORITHM)
    return {"access_token": access_token, "refresh_token": token, "token_type": "bearer", "expires_in": 900}
