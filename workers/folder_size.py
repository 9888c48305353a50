"""How much disk a folder takes, measured a little at a time: a workspace with its packages may hold 100,000 files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_BLOCK_BYTES: Final = 512
"""`st_blocks` counts these, whatever the file system's own are."""


class FolderSize:
    """Walks `folder` again and again, in steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._walk = self._sizes()
        self._sum = 0
        self._whole: int | None = None

    def measure(self, seconds: float) -> int | None:
        """Go on for about so long. Returns the bytes on disk that the last whole walk has found, or that this one has
        found already if that is more; None before there is a figure."""
        deadline = time.monotonic() + seconds
        for size in self._walk:
            self._sum += size
            if time.monotonic() > deadline:
                break
        else:
            self._whole, self._sum, self._walk = self._sum, 0, self._sizes()
            return self._whole
        return max(self._whole or 0, self._sum) or None

    def _sizes(self) -> Iterator[int]:
        """Of every file; one with several names counts once. What goes while we walk is left out."""
        met: set[tuple[int, int]] = set()
        folders = [os.fspath(self._folder)]
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        status = entry.stat(follow_symlinks=False)
                        key = (status.st_dev, status.st_ino)
                        if status.st_nlink == 1 or key not in met:
                            met.update([key] if status.st_nlink > 1 else [])
                            yield status.st_blocks * _BLOCK_BYTES
