"""Migrations of all timelines: upgrade, downgrade, revision, preview and checks."""
