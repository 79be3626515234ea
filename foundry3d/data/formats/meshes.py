"""OBJ, OFF and STL: meshes as plain text, and STL as packed triangles.

Our own readers, as trimesh 5.2 counts negative OBJ indices from the wrong end, drops indented
faces, accepts OFF and STL files that are cut short, and needs another package for text that is not
UTF-8. Only geometry is read: materials and whatever else an OBJ file names are never opened.
Shape legend: N vertices, P polygons.
"""

from __future__ import annotations

import re

import numpy as np

from foundry3d.data.formats.raw import Raw, columns, fans, numbers, ramp, whole
from foundry3d.errors import InputError

_OBJ_VERTEX = re.compile(rb"^[ \t]*v[ \t]+([^\r\n]*)", re.MULTILINE)
_OBJ_FACE = re.compile(rb"^[ \t]*f[ \t]+([^\r\n]*)", re.MULTILINE)
_STL_VERTEX = re.compile(rb"^[ \t]*vertex[ \t]+([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
_STL_HEADER, _STL_FACET = 84, 50


def read_obj(blob: bytes) -> Raw:
    """Vertices and faces of an OBJ file; polygons are cut into triangles.

    Raises:
        InputError: no vertices, or something else than numbers in them or in a face.
    """
    blob = blob.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    lines = [line.decode("latin-1") for line in _OBJ_VERTEX.findall(blob)]
    if not lines:
        raise InputError("expected obj vertices (lines 'v x y z'), got none; check the file")
    vertices = columns(lines)
    if len(vertices) != len(lines):
        raise InputError(
            f"expected three numbers in each of {len(lines)} obj vertices, got "
            f"{len(lines) - len(vertices)} empty ones; export the file again"
        )
    faces = _OBJ_FACE.findall(blob)
    if not faces:
        return Raw(vertices=vertices)
    text = b"\n".join(faces)
    if b"#" in text:
        text = re.sub(rb"#[^\n]*", b"", text)
    if b"/" in text:  # of 1/2/3 only the first
        text = re.sub(rb"/\S*", b"", text)
    counts = np.array([len(line.split()) for line in text.split(b"\n")])
    corners = whole(numbers(text), "vertex numbers of faces")
    if (corners == 0).any() or counts.sum() != len(corners):
        raise InputError(
            "expected obj faces of vertex numbers from 1 on, got 0 or something else; "
            "export the file again"
        )
    if (corners < 0).any():  # counted back from the vertices above the face
        above = [match.start() for match in _OBJ_VERTEX.finditer(blob)]
        where = [match.start() for match in _OBJ_FACE.finditer(blob)]
        known = np.repeat(np.searchsorted(above, where), counts)
        corners = np.where(corners < 0, known + corners + 1, corners)
    return Raw(vertices=vertices, faces=fans(counts, corners - 1))


def read_off(blob: bytes) -> Raw:
    """Vertices and faces of an OFF file (also COFF, NOFF, STOFF); colours are left out.

    Raises:
        InputError: no OFF file, or fewer lines than it declares.
    """
    text = re.sub(r"#[^\r\n]*", "", blob.decode("latin-1"))
    header = re.match(r"\s*(?:ST)?C?N?OFF\s*(\d{1,15})\s+(\d{1,15})(?:[ \t]+\d+)?[ \t\r]*\n", text)
    if header is None:
        raise InputError(
            "expected 'OFF' and the numbers of vertices, faces and edges, got something else; "
            "save the file as a plain OFF file"
        )
    lines = [line for line in text[header.end() :].splitlines() if line.strip()]
    vertices, faces = int(header[1]), int(header[2])
    if vertices + faces > len(lines):
        raise InputError(
            f"expected {vertices} vertices and {faces} faces as the off header declares, got "
            f"{len(lines)} lines; the file is cut short or damaged, copy or export it again"
        )
    points = columns(lines[:vertices]) if vertices else np.zeros((0, 3))
    polygons = lines[vertices : vertices + faces]
    return Raw(vertices=points, faces=_polygons(polygons) if faces else None)


def _polygons(lines: list[str]) -> np.ndarray:
    """Triangles of lines that hold a number of corners, the corners, and perhaps a colour."""
    tokens = numbers("\n".join(lines).encode("latin-1"))
    widths = np.array([len(line.split()) for line in lines])
    starts = np.cumsum(widths) - widths
    counts = widths
    if widths.sum() == tokens.size:
        counts = whole(tokens[starts], "numbers of corners")
    if (counts < 0).any() or (counts >= widths).any():
        raise InputError(
            "expected every off face to be a number of corners and as many vertex numbers, "
            "got a line with fewer; export the file again"
        )
    corners = tokens[np.repeat(starts + 1, counts) + ramp(counts)]
    return fans(counts, whole(corners, "vertex numbers of faces"))


def read_stl(blob: bytes) -> Raw:
    """Triangles of an STL file, packed or text.

    Raises:
        InputError: no STL file, or fewer triangles than it declares.
    """
    facets = int.from_bytes(blob[80:_STL_HEADER], "little")
    size = _STL_HEADER + facets * _STL_FACET
    text = blob[:512].lstrip()[:5].lower() == b"solid" and len(blob) != size
    notices: tuple[str, ...] = ()
    if text:
        vertices = _stl_text(blob)
    elif len(blob) < max(size, _STL_HEADER):
        raise InputError(
            f"expected {facets} packed stl triangles ({size} bytes) as the header declares, got "
            f"{len(blob)} bytes; the file is cut short or damaged, copy or export it again"
        )
    else:
        steps = (_STL_FACET, 12, 4)
        corners = np.ndarray((facets, 3, 3), "<f4", blob, _STL_HEADER + 12, steps)
        vertices = corners.reshape(-1, 3)
        if len(blob) > size:
            notices = ("data after the last triangle that the header declares ignored",)
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return Raw(vertices=vertices, faces=faces, notices=notices)


def _stl_text(blob: bytes) -> np.ndarray:
    """The (3 * triangles, 3) corners of a text STL file."""
    lines = _STL_VERTEX.findall(blob)
    loops = len(re.findall(rb"\bendloop\b", blob, re.IGNORECASE))
    closed = re.search(rb"\bendsolid\b", blob[-512:], re.IGNORECASE)
    values = numbers(b"\n".join(lines))
    if len(lines) != 3 * loops or values.size != 3 * len(lines) or not closed:
        raise InputError(
            f"expected a text stl file of triangles that ends with 'endsolid', got {len(lines)} "
            f"corners for {loops} triangles; the file is cut short or damaged, export it again"
        )
    return values.reshape(-1, 3)
