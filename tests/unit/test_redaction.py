"""What is secret is never shown."""

from __future__ import annotations

from orchestrator.redaction import Redaction, passwords_of, redact_url, secrets_of


def test_a_secret_is_hidden_wherever_it_stands_and_the_longer_one_first() -> None:
    redaction = Redaction(["sk-12345678", "sk-12345678-and-more"])
    assert redaction.hide("a sk-12345678-and-more b sk-12345678.") == "a *** b ***."


def test_what_is_too_short_to_be_told_from_other_text_stays() -> None:
    assert Redaction(["short", ""]).hide("a short text") == "a short text"


def test_the_secrets_are_those_of_the_named_variables_whose_name_says_so() -> None:
    environment = {"A_KEY": "1", "BASE_URL": "2", "OTHER_TOKEN": "3"}
    assert secrets_of(environment, ["A_KEY", "BASE_URL", "NOT_THERE_KEY"]) == ["1"]


def test_passwords_of_urls() -> None:
    assert passwords_of("redis://:p4ssw0rd@host:1/0") == ["p4ssw0rd"]
    assert passwords_of("redis://host:1/0") == passwords_of(None) == []
    assert passwords_of("postgresql://me:p%2Fw@host/x") == ["p%2Fw", "p/w"]


TOKEN = "ghp_0123456789abcdef"


def test_a_token_in_the_place_of_a_name_is_a_password() -> None:
    for login in (TOKEN, f"{TOKEN}:", f"{TOKEN}:x-oauth-basic"):
        url = f"https://{login}@host/repo.git"
        assert passwords_of(url) == [TOKEN]
        assert TOKEN not in redact_url(f"fatal: could not read from {url}")
    assert passwords_of("https://alice@host/repo.git") == passwords_of(f"ssh://{TOKEN}@host/repo.git") == []
