"""Errors of this module."""

from app.core.exceptions import AppError, AuthenticationError, NotFoundError


class InvalidApiKey(AuthenticationError):
    """The key or token is malformed, unknown, expired or revoked, or its owner cannot act; never says which."""

    code = "invalid_api_key"
    default_detail = "The API key is not valid."


class ApiKeyNotFound(NotFoundError):
    code = "api_key_not_found"
    default_detail = "The API key was not found."


class InvalidTokenRequest(AppError):
    """A token was asked for in a wrong way; `error` is RFC 6749's word for it (section 5.2)."""

    code = "invalid_token_request"
    default_detail = "Send grant_type=client_credentials, client_id and client_secret as a form."
