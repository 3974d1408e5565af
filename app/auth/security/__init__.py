"""Passwords, tokens and the identity of addresses; no database, no HTTP."""
