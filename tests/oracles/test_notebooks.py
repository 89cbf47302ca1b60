"""The notebooks that meet other libraries run, and what they show is what they compute."""

import pytest
from executed import WITH_PEERS, check_notebook


@pytest.mark.parametrize("stem", sorted(WITH_PEERS))
def test_notebook_runs_and_prints_what_it_shows(stem, monkeypatch):
    check_notebook(stem, monkeypatch)
