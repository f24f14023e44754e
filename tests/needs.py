"""What a test needs and a machine may lack."""
import os

import pytest


def lacking(reason):
    """Skip the test; fail where CI promises that nothing is lacking."""
    (pytest.fail if os.environ.get('CI') else pytest.skip)(reason)
