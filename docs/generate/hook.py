"""MkDocs hook: links that lead out of `docs/` find what they name in the site, too.

Pages link to the research log, the changelog and source files by their paths in the repository, so that the
links work wherever the repository is read. Each such target is added to the site, a Markdown file as a page.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from posixpath import join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/results.md",
    "benchmarks/experiments.md",
    "clients/node/README.md",
    "clients/python/README.md",
)
"""Markdown outside `docs/` that is part of the site."""
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def repository_path(source: str) -> str:
    """Return where a page of the site lies in the repository."""
    inside = f"docs/{source}"
    return inside if (ROOT / inside).is_file() else source


def site_path(path: str) -> str:
    """Return where a file of the repository lies in the site's sources."""
    return path.removeprefix("docs/")


def targets(text: str, path: str) -> set[str]:
    """Return the files of the repository outside `docs/` that a page links to."""
    found = {normpath(join(os.path.dirname(path), m[2])) for m in LINK.finditer(text) if "://" not in m[2]}
    return {f for f in found if not f.startswith("docs/") and (ROOT / f).is_file()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside `docs/`, and every file outside it that a page links to."""
    wanted = set(PAGES)
    sources = [repository_path(f.src_uri) for f in files.documentation_pages()]
    for path in (*sources, *PAGES):
        wanted |= targets((ROOT / path).read_text(), path)
    for path in sorted(wanted):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between files of the site."""
    source = page.file.src_uri
    folder = os.path.dirname(repository_path(source))

    def rewritten(link: re.Match[str]) -> str:
        if "://" in link[2]:
            return link[0]
        target = site_path(normpath(join(folder, link[2])))
        return f"{link[1]}{relpath(target, os.path.dirname(source) or '.')}{link[3]}"

    parts = FENCE.split(markdown)
    return "".join(part if n % 2 else LINK.sub(rewritten, part) for n, part in enumerate(parts))
