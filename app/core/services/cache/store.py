"""What the cache is kept in: bytes by key, and a token for every tag."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import NamedTuple

Tokens = Mapping[str, str]
"""What tags stand for at the moment. An entry counts while its tags still stand for what it was stored under."""


class Found(NamedTuple):
    """What is stored under a key, and the tokens of the tags asked for, as far as there are any."""

    data: bytes | None
    tokens: Tokens


class CacheStore(ABC):
    """Bytes by key. Forgetting a tag's token forgets every entry that was stored under it, without a list of them."""

    @abstractmethod
    async def read(self, key: str, tags: Collection[str]) -> Found:
        """What there is."""

    @abstractmethod
    async def claim(self, tags: Collection[str]) -> Tokens:
        """The tags' tokens, made where there are none."""

    @abstractmethod
    async def write(self, key: str, data: bytes, seconds: float, tags: Collection[str]) -> bool:
        """Keep `data` for `seconds`, and the tokens of its tags at least as long. False where it could not be kept."""

    @abstractmethod
    async def remove(self, keys: Collection[str], tags: Collection[str] = ()) -> bool:
        """Forget keys and tokens. False where that has to wait."""

    @abstractmethod
    async def remove_matching(self, namespace: str, pattern: str) -> bool:
        """Forget the keys of the namespace that fit the pattern. False where that has to wait."""
