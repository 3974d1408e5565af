"""Why nothing was generated."""


class GeneratorError(Exception):
    """The command cannot do this; the message is for the person who typed it."""
