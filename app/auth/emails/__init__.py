"""The mails of this module."""
