"""The built pages: hashed assets that never change, and one HTML page for every page route."""

from mimetypes import guess_type
from pathlib import Path, PurePosixPath
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse

STATIC: Final = Path(__file__).parent / "static"
_NOT_BUILT: Final = (
    '<!doctype html><html lang="zh"><meta charset="utf-8"><title>安心 Anxin</title>'
    "<h1>安心 Anxin</h1><p>页面尚未构建，请运行 <code>make web</code>。</p>"
    "<p>The pages are not built yet. Run <code>make web</code>.</p></html>"
)

router = APIRouter(include_in_schema=False)


@router.api_route("/{path:path}", methods=["GET", "HEAD"])
def page(path: str, request: Request) -> Response:
    """Serve a file of the pages, or the one page that then shows what its path says."""
    static: Path = request.app.state.static
    wanted = PurePosixPath(path)
    if path.startswith("api/") or "\x00" in path:
        raise HTTPException(404, "There is no such route; /api/docs lists them.")
    if any(part.startswith(".") for part in wanted.parts):
        raise HTTPException(404, "There is no such file.")
    if wanted.suffix:
        file = (static / wanted).resolve()
        if not file.is_relative_to(static.resolve()) or not file.is_file():
            raise HTTPException(404, "There is no such file.")
        return _file(file, request, forever="assets" in wanted.parts)
    index = static / "index.html"
    if not index.is_file():
        return HTMLResponse(_NOT_BUILT, status_code=503)
    return _file(index, request, forever=False)


def _file(file: Path, request: Request, *, forever: bool) -> Response:
    """Return a file, compressed where the build has made that and the browser takes it."""
    caching = "public, max-age=31536000, immutable" if forever else "no-cache"
    headers = {"cache-control": caching, "vary": "accept-encoding"}
    smaller = file.with_name(f"{file.name}.gz")
    if "gzip" not in request.headers.get("accept-encoding", "") or not smaller.is_file():
        return FileResponse(file, headers=headers)
    kind, _ = guess_type(file.name)
    return FileResponse(smaller, headers=headers | {"content-encoding": "gzip"}, media_type=kind)
