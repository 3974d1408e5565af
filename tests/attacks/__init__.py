"""Attacks on this service or on any deployment of it: in process (pytest), and by `make attacks` as a client would.

What is attacked comes from the OpenAPI document, so that routes of other modules are tried too. Only the flows of
accounts (login, refresh, mailed links, administration of accounts) are known by their paths. Nothing here imports `app`
but `inside.py`, `started.py` and the tests.
"""
