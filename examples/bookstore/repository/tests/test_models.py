"""Both models in one database: green once both are merged."""

from collections.abc import Iterator

import pytest
from bookstore.base import Base
from bookstore.models.product import Product
from bookstore.models.user import User
from sqlalchemy import create_engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


def test_a_user_is_stored(session: Session) -> None:
    session.add(User(name="A reader", email="reader@example.org"))
    session.commit()
    assert session.scalars(select(User.name)).all() == ["A reader"]


def test_an_email_belongs_to_one_user(session: Session) -> None:
    session.add_all(
        [User(name="A reader", email="reader@example.org"), User(name="Another reader", email="reader@example.org")]
    )
    with pytest.raises(IntegrityError):
        session.commit()


def test_a_product_is_stored(session: Session) -> None:
    session.add(Product(title="A cookery book", price_cents=1250))
    session.commit()
    assert session.scalars(select(Product.price_cents)).all() == [1250]


def test_a_price_is_not_negative(session: Session) -> None:
    session.add(Product(title="A gift", price_cents=-1))
    with pytest.raises(IntegrityError):
        session.commit()


def test_both_models_share_one_database() -> None:
    assert set(Base.metadata.tables) == {"users", "products"}
