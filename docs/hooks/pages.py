"""MkDocs hook: adds generated pages and those of the repository's root to the site, and mends links that leave docs/.

Links in docs/ are relative, so that they work in the repository as well. One that leads out of docs/ becomes a link to
the page that the site has of that file, otherwise one to the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

import command_reference
import grpc_reference
import python_reference
import settings_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]
REPOSITORY: Final = "https://github.com/convlens/convlens/blob/main/"
ROOT_PAGES: Final = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Pages of the site that lie in the repository's root."""
GENERATED: Final = {
    "commands.md": command_reference.render,
    "grpc-api.md": grpc_reference.render,
    "python-api.md": python_reference.render,
}
SEARCH_BOOST: Final = (
    (2.0, "first-picture own-model many-images several-machines securing gpu testing troubleshooting client"),
    (2.0, "choosing-a-method coming-from-captum coming-from-keras-vis coming-from-tf-keras-vis coming-from-torch-cam"),
    (0.75, "install"),
    (0.3, "commands grpc-api python-api architecture changelog contributing glossary security"),
)
"""Guides are found before reference, and this before what only developers read. The search takes each word of a
question for a word's beginning, so that "how do I …" would find Installing first, and "no …" Notebooks."""
MARKER: Final = "<!-- generated: the tables of settings -->"
LINK: Final = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
CODE: Final = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for path, render in GENERATED.items():
        files.append(File.generated(config, path, content=render()))
    for name, path in ROOT_PAGES.items():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' call
    """Fill in the tables of settings, and mend the links of one page."""
    for boost, names in SEARCH_BOOST:
        if Path(page.file.src_path).stem in names.split():
            page.meta["search"] = {"boost": boost}
    if MARKER in markdown:
        markdown = markdown.replace(MARKER, settings_reference.render())
    is_root_page = page.file.src_path in ROOT_PAGES.values()
    return mend_links(markdown, "" if is_root_page else "docs")


def mend_links(markdown: str, folder: str) -> str:
    """Return the text of a file in a folder of the repository with the links that lead to the site's pages."""
    pieces = []
    end = 0
    for code in CODE.finditer(markdown):
        pieces += [LINK.sub(lambda link: _resolve(link[1], folder), markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, LINK.sub(lambda link: _resolve(link[1], folder), markdown[end:])])


def _resolve(target: str, folder: str) -> str:
    path = posixpath.normpath(posixpath.join(folder, target))
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return REPOSITORY + path if (ROOT / path).exists() else target  # a wrong one is left to MkDocs, which warns
