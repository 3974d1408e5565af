"""Commands of this module: each file is a group of `kit`."""
