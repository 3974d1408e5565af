"""Request and response schemas of this module."""
