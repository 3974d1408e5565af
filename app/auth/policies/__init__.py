"""Who may do what. A policy raises ActionNotAllowed where the answer to its question is no."""
