"""The disk: what makes a name stay when power is lost."""

import os
from pathlib import Path


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder: a file that is flushed but not its name may be gone."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
