"""The documentation site: pages that lie outside of docs/, and links between files as links between pages.

A hook of MkDocs. On the site, docs/ is the root, README.md is the first page, other Markdown and pictures
keep their places in the repository, and whatever else a page links to is shown as source.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "bench/NOTES.md",
    "bench/results/*.md",
    "bench/results/*.png",
)
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")  # the path of [text](path#anchor)


def _on_site(path):
    """Where a file of the repository is on the site."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.endswith((".md", ".png")) else f"source/{path}.md"


def _in_repository(page):
    return page.file.generated_from or f"docs/{page.file.src_uri}"


def _linked(path, text):
    """The files of the repository that `text`, of the file `path`, links to: link, path."""
    for link in LINK.findall(text):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        if (ROOT / target).is_file():
            yield link, target


def _add(files, config, path, **content):
    file = File.generated(config, _on_site(path), **content)
    file.generated_from = path
    files.append(file)


def on_files(files, config):
    for file in files:
        file.generated_from = None
    paths = [str(found.relative_to(ROOT)) for pattern in PAGES for found in sorted(ROOT.glob(pattern))]
    for path in paths:
        _add(files, config, path, abs_src_path=str(ROOT / path))
    pages = [*paths, *(f"docs/{file.src_uri}" for file in files if file.generated_from is None)]
    for page in [page for page in pages if page.endswith(".md")]:
        for _, path in _linked(page, (ROOT / page).read_text()):
            if _on_site(path).startswith("source/") and files.get_file_from_path(_on_site(path)) is None:
                _add(files, config, path, content=_source(path))
    return files


def _source(path):
    language = {".py": "python", ".h": "cpp", ".cpp": "cpp", ".cu": "cpp"}.get(Path(path).suffix, "text")
    code = (ROOT / path).read_text()
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n``` {language}\n{code}\n```\n"


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri.startswith("source/"):
        return markdown
    targets = dict(_linked(_in_repository(page), markdown))
    here = posixpath.dirname(page.file.src_uri) or "."

    def on_site(match):
        target = targets.get(match[0])
        return match[0] if target is None else posixpath.relpath(_on_site(target), here)

    return LINK.sub(on_site, markdown)
