"""Passwords, tokens, and keys of addresses and names; no database, no HTTP."""
