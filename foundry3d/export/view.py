"""`foundry3d view`: the page of `edge/web` on this machine, with exported models and clouds loaded.

A table holds everything that is served, so no request reaches another file. The headers isolate
the page, which browsers ask for before WebAssembly may use several threads.
"""

from __future__ import annotations

import json
import logging
import shutil
import webbrowser
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from foundry3d.config import ViewConfig
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

PAGE = Path(__file__).parents[2] / "edge" / "web" / "dist"
"""Where `make web` builds the page; it is not part of an installed package."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
READ_BY_PAGE = (".ply", ".obj", ".xyz", ".txt", ".csv", ".pts")
"""Files that the page reads itself; other formats are read here and served as ply."""

Served = Mapping[str, Path | bytes]
"""Files, or their content, by address."""


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the fields of a protobuf message that have a length.

    Raises:
        ValueError: the bytes are no message.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while shift < 64:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value
        raise ValueError("a number is too long")

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 2:
            end = varint() + at
            if end > len(message):
                raise ValueError("a field ends behind the message")
            yield number, message[at:end]
            at = end
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 0:
            varint()
        else:
            raise ValueError(f"unknown kind of field {kind}")


def description(path: Path) -> dict[str, Any]:
    """What `foundry3d export` wrote into an ONNX file about the model.

    Raises:
        InputError: the file is missing, or not one that `foundry3d export` has written.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        entries = [dict(fields(body)) for number, body in fields(path.read_bytes()) if number == 14]
        found = next(json.loads(entry[2]) for entry in entries if entry.get(1) == b"foundry3d")
    except (ValueError, IndexError, KeyError, StopIteration):
        found = {}
    if not isinstance(found, dict) or found.get("format") != "foundry3d-export":
        raise InputError(f"{path}: expected an .onnx file that foundry3d export has written")
    return found


def check_models(paths: Iterable[Path]) -> None:
    """Checks that files are exports of one checkpoint.

    Raises:
        InputError: they are not, or one is no export.
    """
    names = ("kind", "groups", "group_size", "width", "source", "classes", "parts", "preparation")
    first: tuple[Path, list[Any]] | None = None
    for path in paths:
        found = description(path)
        same = [found.get(name) for name in names]
        first = first or (path, same)
        if same != first[1]:
            raise InputError(
                f"{first[0]} and {path} are exports of different checkpoints; view one at a time"
            )


def as_ply(path: Path) -> bytes:
    """The points of a file in any format that the package reads, as a binary ply file.

    Raises:
        InputError: it cannot be read.
    """
    from foundry3d.data.files import read_points

    points = np.ascontiguousarray(read_points(path).points, "<f4")
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{axes}end_header\n"
    )
    return header.encode() + points.tobytes()


def served(page: Path, models: Iterable[Path], clouds: Iterable[Path]) -> Served:
    """Everything that is served: the page, models and clouds, and a manifest that lists them.

    Raises:
        InputError: the page is not built, or a model or cloud cannot be read.
    """
    if not (page / "index.html").is_file():
        raise InputError(
            f"the page is not built, {page} has no index.html; run `make web` in a clone of the "
            "project, or name the folder of a built page with --page"
        )
    table: dict[str, Path | bytes] = {
        path.relative_to(page).as_posix(): path for path in page.rglob("*") if path.is_file()
    }
    models = list(models)
    check_models(models)
    listed: dict[str, list[str]] = {"models": [], "clouds": []}
    for kind, paths in (("models", models), ("clouds", clouds)):
        for number, path in enumerate(paths):
            if not path.is_file():
                raise InputError(f"{path}: no such file")
            plain = kind == "models" or path.suffix.lower() in READ_BY_PAGE
            address = f"{kind}/{number}/{path.name if plain else f'{path.name}.ply'}"
            table[address] = path if plain else as_ply(path)
            listed[kind].append(quote(address))
    table["manifest.json"] = json.dumps(listed).encode()
    return table


def handler(table: Served) -> type[BaseHTTPRequestHandler]:
    """A handler of requests that serves a table and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if (stream := self.head()) is not None:
                with stream, suppress(ConnectionError):  # the browser may leave
                    shutil.copyfileobj(stream, self.wfile)

        def do_HEAD(self) -> None:
            if (stream := self.head()) is not None:
                stream.close()

        def head(self) -> BinaryIO | None:
            """Sends the headers; returns the content, or None after an error."""
            name, _, _ = self.headers.get("Host", "").partition(":")
            if name not in ("127.0.0.1", "localhost"):  # a foreign page that points here
                self.send_error(HTTPStatus.FORBIDDEN)
                return None
            address = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
            content = table.get(address)
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return None
            try:
                stream = BytesIO(content) if isinstance(content, bytes) else content.open("rb")
            except OSError:
                self.send_error(HTTPStatus.NOT_FOUND)
                return None
            size = stream.seek(0, 2)
            stream.seek(0)
            self.send_response(HTTPStatus.OK)
            kind = TYPES.get(Path(address).suffix.lower(), "application/octet-stream")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            for key, value in HEADERS.items():
                self.send_header(key, value)
            self.end_headers()
            return stream

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Handler


def serve(table: Served, port: int) -> ThreadingHTTPServer:
    """A server of a table on 127.0.0.1 that listens and does not answer yet.

    Args:
        table: what it serves.
        port: 0 = any free one.

    Raises:
        InputError: the port cannot be had.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler(table))
    except OSError as error:
        raise InputError(
            f"port {port} cannot be used ({error.strerror}); leave --port out for a free one"
        ) from None


def view(config: ViewConfig) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        InputError: the page is not built, a file cannot be read, or the port is taken.
    """
    paths = [Path(name) for name in config.files]
    models = [path for path in paths if path.suffix.lower() == ".onnx"]
    clouds = [path for path in paths if path not in models]
    table = served(Path(config.page) if config.page else PAGE, models, clouds)
    with serve(table, config.port) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if not config.no_browser:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
