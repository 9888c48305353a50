#!/usr/bin/env bash
# An agent that implements the Product model. It works beside the one for User, in a workspace of its own.
set -euo pipefail

echo "Reading src/bookstore/base.py"
sleep 1

echo "Writing src/bookstore/models/product.py"
cat > src/bookstore/models/product.py <<'PYTHON'
"""Something that the store sells."""

from bookstore.base import Base
from sqlalchemy import CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column


class Product(Base):
    __tablename__ = "products"
    __table_args__ = (CheckConstraint("price_cents >= 0"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    price_cents: Mapped[int]
PYTHON
sleep 1

echo "Creating the table in an empty database"
PYTHONPATH=src python - <<'PYTHON'
from bookstore.models.product import Product
from sqlalchemy import create_engine

Product.metadata.create_all(create_engine("sqlite://"))
PYTHON
sleep 0.5

echo "Done: Product has id, title and a price in cents that is never negative"
