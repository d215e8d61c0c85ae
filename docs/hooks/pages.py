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
GUIDES: Final = (
    "first-picture", "own-model", "many-images", "several-machines", "securing", "gpu", "testing", "troubleshooting",
    "web", "client", "choosing-a-method", "coming-from-captum", "coming-from-keras-vis", "coming-from-tf-keras-vis",
    "coming-from-torch-cam",
)  # fmt: skip
REFERENCE: Final = (
    "commands", "grpc-api", "python-api", "architecture", "changelog", "contributing", "glossary", "security",
)  # fmt: skip
SEARCH_BOOST: Final = dict.fromkeys(GUIDES, 2.0) | {"install": 0.75, "notebooks": 0.75} | dict.fromkeys(REFERENCE, 0.3)
"""Guides are found first. The search takes each word of a question for a word's beginning, so that without this "how do
I …" would find Installing first, and "no …" Notebooks."""
MARKER: Final = "<!-- generated: the tables of settings -->"
LINK: Final = re.compile(
    r"^```.*?^```$|`[^`\n]+`|(?<=\]\()(?P<target>(?!https?:|mailto:|#)[^)#\s]+)", re.DOTALL | re.MULTILINE
)
"""Code, which stays as it is, or the target of a relative link."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for path, render in GENERATED.items():
        files.append(File.generated(config, path, content=render()))
    for name, path in ROOT_PAGES.items():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' call
    """Fill in the tables of settings, and mend the links of one page."""
    page.meta["search"] = {"boost": SEARCH_BOOST.get(Path(page.file.src_path).stem, 1.0)}
    if MARKER in markdown:
        markdown = markdown.replace(MARKER, settings_reference.render())
    is_root_page = page.file.src_path in ROOT_PAGES.values()
    return mend_links(markdown, "" if is_root_page else "docs")


def mend_links(markdown: str, folder: str) -> str:
    """Return the text of a file in a folder of the repository with the links that lead to the site's pages."""
    return LINK.sub(lambda part: _resolve(part["target"], folder) if part["target"] else part[0], markdown)


def _resolve(target: str, folder: str) -> str:
    path = posixpath.normpath(posixpath.join(folder, target))
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return REPOSITORY + path if (ROOT / path).exists() else target  # a wrong one is left to MkDocs, which warns
