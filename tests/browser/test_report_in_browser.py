"""The HTML report as a browser shows it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli.report_html import html_report
from tests.unit.test_report_pages import hostile_history

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def open_page(page: Path, *options: str) -> str:
    """What Chromium prints when it has shown the page without a window."""
    assert CHROMIUM is not None
    quiet = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            *quiet,
            offline,
            f"--user-data-dir={page.parent / 'profile'}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(html_report(hostile_history()), encoding="utf-8")
    return file


def test_nothing_of_a_job_becomes_an_element(page: Path) -> None:
    shown = open_page(page, "--dump-dom")
    assert '<svg class="timeline"' in shown
    for element in ("<script", "<img", 'onerror="'):
        assert element not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


def test_it_is_drawn_in_light_and_in_dark(page: Path) -> None:
    pictures = []
    for scheme in ("0", "1"):
        picture = page.parent / f"{scheme}.png"
        open_page(page, f"--screenshot={picture}", f"--blink-settings=preferredColorScheme={scheme}")
        pictures.append(picture.read_bytes())
    assert all(len(picture) > 10_000 for picture in pictures), "an empty page is smaller"
    assert pictures[0] != pictures[1]
