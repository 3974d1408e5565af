"""The rules of this module, its transactions and its events."""
