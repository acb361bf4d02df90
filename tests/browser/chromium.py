"""Where the browser is."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str | None:
    """The installed browser; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)
