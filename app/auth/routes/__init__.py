"""The paths of this module, by version."""
