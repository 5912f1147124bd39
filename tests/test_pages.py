"""README.md and docs/: their Python runs from top to bottom, and everything public has its place."""

import re

import pytest
from pages import INTEGRATIONS, ROOT, blocks, library_of, run

import fastlogconv

OF_LIBRARIES = ROOT / "tests" / "integrations"
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks(page)]
ELSEWHERE = {"walkthrough.md", "recipes.md"}  # test_plotting.py, test_recipes.py


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in ELSEWHERE], ids=lambda page: page.name)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("\n".join(block for block in blocks(page) if library_of(block) is None), page)


def test_every_library_is_shown_and_tested():
    shown = [library_of(block) for block in blocks(INTEGRATIONS) if library_of(block)]
    assert sorted(shown) == ["albumentations", "batchgeneratorsv2", "fastai", "monai", "torchvision"]
    for library in shown:
        assert "run_page_of(" in (OF_LIBRARIES / f"test_{library}.py").read_text()


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    documented = re.findall(r"^::: fastlogconv\.(\w+)$", pages, flags=re.MULTILINE)
    assert sorted(documented) == sorted(fastlogconv.__all__)


def test_every_page_is_on_the_site():
    site = (ROOT / "mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert f": {page.relative_to(ROOT / 'docs')}\n" in site
