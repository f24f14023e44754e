"""One browser for all tests of pages."""
import sys
from pathlib import Path

import pytest
from needs import lacking

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools'))


@pytest.fixture(scope='module')
def browser():
    """Chromium, driven by Playwright.

    Not kept for the session: as long as it is there, no other test can start
    an event loop of its own.
    """
    pytest.importorskip('playwright', reason='Playwright is not installed')
    import browser as tool
    if tool.find_chromium() is None:
        lacking(tool.MISSING)
    with tool.chromium() as chromium:
        yield chromium
