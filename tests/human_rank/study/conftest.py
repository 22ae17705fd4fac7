"""Fixtures of the tests of studies."""

from __future__ import annotations

import pytest
from human_rank.study.studies import make_study

from stackgan_dist.human_rank.study.folder import Study


@pytest.fixture
def study() -> Study:
    """Three methods, ten sentences, two attention checks."""
    return make_study(checks=2)
