"""A layered modular monolith: one service, many modules."""
