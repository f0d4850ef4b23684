"""The README's table of parameters is what the code declares, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from gena3d_ros import parameters

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_parameter_table_is_up_to_date():
    begin = README.index("--markdown` -->") + len("--markdown` -->")
    assert README[begin : README.index("<!-- end of parameters -->")].strip() == parameters.to_markdown().strip()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_to_files_lead_somewhere(target):
    assert (ROOT / target).exists()
