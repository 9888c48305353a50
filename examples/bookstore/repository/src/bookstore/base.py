"""What all models share."""

from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """Base of the models; its metadata knows all tables."""
