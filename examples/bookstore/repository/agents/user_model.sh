#!/usr/bin/env bash
# An agent that implements the User model. It prints what it does, as agent programs do.
set -euo pipefail

echo "Reading src/bookstore/base.py"
sleep 0.8

echo "Writing src/bookstore/models/user.py"
cat > src/bookstore/models/user.py <<'PYTHON'
"""A person who buys books."""

from bookstore.base import Base
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    email: Mapped[str] = mapped_column(String(254), unique=True)
PYTHON
sleep 0.8

echo "Creating the table in an empty database"
PYTHONPATH=src python - <<'PYTHON'
from bookstore.models.user import User
from sqlalchemy import create_engine

User.metadata.create_all(create_engine("sqlite://"))
PYTHON
sleep 0.4

echo "Done: User has id, name and a unique email"
