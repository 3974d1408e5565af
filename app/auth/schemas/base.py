"""The field types that the bodies of this module share."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from app.auth.security.identity import USERNAME_MAX, USERNAME_MIN, USERNAME_PATTERN, normalize_email
from app.auth.security.passwords import MAX_LENGTH, MIN_LENGTH


def _email(value: str) -> str:
    try:
        return normalize_email(value)
    except ValueError:
        # The library's own message may quote what was sent.
        raise PydanticCustomError("email", "Value is not a valid e-mail address") from None


Email: TypeAlias = Annotated[str, Field(max_length=254, json_schema_extra={"format": "email"}), AfterValidator(_email)]
Username: TypeAlias = Annotated[
    str, Field(min_length=USERNAME_MIN, max_length=USERNAME_MAX, pattern=USERNAME_PATTERN, examples=["bob"])
]
# Length is the only rule (NIST SP 800-63B section 5.1.1.2, OWASP ASVS 2.1): composition rules make passwords worse.
NewPassword: TypeAlias = Annotated[SecretStr, Field(min_length=MIN_LENGTH, max_length=MAX_LENGTH)]
GivenPassword: TypeAlias = Annotated[SecretStr, Field(max_length=MAX_LENGTH)]
Token: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
