"""A hook of mkdocs (mkdocs.yml): pages of the root are pages of the site too, and links out of it become text."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
OF_THE_ROOT = ("SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages that stand in the root of the repository, where forges look for them."""
    for name in OF_THE_ROOT:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, **_):
    """Return a page whose links are those of the site."""
    return relinked(markdown, page.file.src_uri)


def relinked(markdown, page):
    """Return the text of a page with its links as the site has them; where they lead out of it, with a path to read."""
    here = page if page in OF_THE_ROOT else f"docs/{page}"

    def link(match):
        image, text, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if path not in OF_THE_ROOT and not path.startswith("docs/"):
            return text if f"`{path}`" == text else f"{text} (`{path}` of the repository)"
        to = posixpath.relpath(path.removeprefix("docs/"), posixpath.dirname(page) or ".")
        return f"{image}[{text}]({to}{anchor or ''})"

    return _LINK.sub(link, markdown)
