"""A Chromium to draw, print and test pages with."""
import os
import shutil
from contextlib import contextmanager

MISSING = ('no Chromium found (Debian, Ubuntu: sudo apt install chromium; '
           'or name one in the variable CHROMIUM)')


def find_chromium():
    """Path of a Chromium or Chrome on this machine, or None."""
    for name in (os.environ.get('CHROMIUM'), 'chromium', 'chromium-browser',
                 'google-chrome'):
        if name and (path := shutil.which(name)):
            return path
    return None


@contextmanager
def chromium(**options):
    """Start Chromium without a window; Playwright's browser object."""
    from playwright.sync_api import sync_playwright
    path = find_chromium()
    if path is None:
        raise SystemExit(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=['--no-sandbox'], **options)
        try:
            yield browser
        finally:
            browser.close()
