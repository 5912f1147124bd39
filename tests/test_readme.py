"""The README's Python, run from top to bottom; what needs another library, in the tests of that library."""

from pathlib import Path

from readme import blocks, library_of

INTEGRATIONS = Path(__file__).parent / "integrations"


def test_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = [block for block in blocks() if library_of(block) is None]
    assert len(own) >= 3
    exec(compile("\n".join(own), "README.md", "exec"), {"__name__": "readme"})


def test_every_library_is_shown_and_tested():
    shown = [library_of(block) for block in blocks() if library_of(block)]
    assert sorted(shown) == ["albumentations", "batchgeneratorsv2", "fastai", "monai", "torchvision"]
    for library in shown:
        assert "run_readme_of(" in (INTEGRATIONS / f"test_{library}.py").read_text()
