"""The page at `/`: files beside this one, which know nothing. What they show, they ask for as any client does."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER: Final[Traversable] = files("gateway.bridges.web").joinpath("static")
MEDIA_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS: Final = {
    # No script or style but of these files, nothing from elsewhere, in nobody's frame; and no text becomes HTML.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
INDEX: Final = "index.html"


def routes() -> list[Route]:
    """Return a path for each file, read once. Needs no token: there is nothing of the plants in them."""
    return [
        _route("/" if each.name == INDEX else f"/static/{each.name}", each)
        for each in FOLDER.iterdir()
        if each.name.rpartition(".")[2] in MEDIA_TYPES
    ]


def _route(path: str, file: Traversable) -> Route:
    raw, media_type = file.read_bytes(), MEDIA_TYPES[file.name.rpartition(".")[2]]

    async def show(_: Request) -> Response:
        return Response(raw, headers=HEADERS, media_type=media_type)

    return Route(path, show)
