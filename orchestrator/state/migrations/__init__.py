"""Alembic's revisions of the tables. `python -m tests.support.new_revision` writes the next one."""

from typing import Final

HEAD: Final = "0005"
"""The newest revision below `versions/`; written here so that nobody must read that folder to know it."""
