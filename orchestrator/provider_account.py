"""Whose limits an agent's calls count against: a provider, one of its keys, and a model.

    anthropic#9f31c2d4a07e/sonnet        127.0.0.1:8080#-/default        (`-`: no key)

Every worker that has the same key makes the same name of it, so the fleet shares what it learns of the account. The name
tells two keys apart and gives neither away: it has 48 bits of scrypt over the key, with a salt that only the fleet's
database knows. Who reads a name (`orchestrator workers`, logs, JSON) can check no guess without the salt; who reads the
database pays for each guess, and learns only that a key is one of very many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

NO_KEY: Final = "-"
DEFAULT_MODEL: Final = "default"
_HASH_BYTES: Final = 6
_LONGEST_MODEL: Final = 200


@dataclass(frozen=True)
class Provider:
    """A provider that an agent may ask, with the worker's variables that lead to it.

    `name` is also what the names of its models begin with (`anthropic/claude-sonnet-4-5`), where a program speaks to
    several. Of `keys` the first that is set is the one that the program uses. `address` is the variable that names
    another address than the provider's own.
    """

    name: str
    keys: tuple[str, ...] = ()
    address: str | None = None


@dataclass(frozen=True)
class Account:
    provider: str
    key_hash: str
    model: str

    @property
    def name(self) -> str:
        return f"{self.provider}#{self.key_hash}/{self.model}"

    @property
    def words(self) -> str:
        """For people: `anthropic`, or `anthropic (sonnet)`."""
        return self.provider if self.model == DEFAULT_MODEL else f"{self.provider} ({self.model})"

    @classmethod
    def of_name(cls, name: str) -> Self:
        provider, _, rest = name.partition("#")
        key_hash, _, model = rest.partition("/")
        return cls(provider, key_hash, model)


def account_of(
    providers: Sequence[Provider], model: str | None, environment: Mapping[str, str], hash_key: Callable[[str], str]
) -> Account | None:
    """The account of an agent that may ask these providers, in a worker with that environment. None: of nobody."""
    if not providers:
        return None
    provider = _chosen(providers, model, environment)
    key = next((environment[name] for name in provider.keys if environment.get(name)), None)
    return Account(
        _address(environment.get(provider.address or "")) or provider.name,
        NO_KEY if key is None else hash_key(key),
        (model or DEFAULT_MODEL).removeprefix(f"{provider.name}/")[:_LONGEST_MODEL],
    )


def hash_of_key(key: str, salt: str) -> str:
    """Takes some 50 ms of a processor and 16 MiB: whoever guesses keys pays as much for each."""
    digest = hashlib.scrypt(key.encode("utf-8", "surrogateescape"), salt=salt.encode(), n=2**14, r=8, p=1)
    return digest[:_HASH_BYTES].hex()


def _chosen(providers: Sequence[Provider], model: str | None, environment: Mapping[str, str]) -> Provider:
    """The one that the model's name begins with; else the first whose key is there, as the programs do it."""
    if len(providers) == 1:
        return providers[0]
    prefix, slash, _ = (model or "").partition("/")
    if slash:
        return next((one for one in providers if one.name == prefix), Provider(prefix))
    with_key = (one for one in providers if any(environment.get(name) for name in one.keys))
    return next(with_key, providers[0])


def _address(url: str | None) -> str | None:
    """Host and port; a user's name or password in the address is not for showing."""
    try:
        place = urlsplit(url or "").netloc
    except ValueError:
        return None
    # A variable may hold bytes that are no text, and the database takes none.
    return place.rpartition("@")[2].lower().encode("utf-8", "replace").decode() or None
