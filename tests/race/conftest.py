import shutil
from pathlib import Path

import pytest


@pytest.fixture
def toys(tmp_path):
    """A workload file of a person who is racing on problems of their own."""
    return Path(shutil.copy(Path(__file__).with_name("toys.py"), tmp_path))
