"""OBJ, OFF and STL: meshes as plain text, and STL as packed triangles.

Our own readers, because trimesh 5.2 counts negative OBJ indices from the wrong end, drops indented
faces, accepts OFF and STL files that are cut short, and needs another package for text that is not
UTF-8. Only geometry is read: materials and other files that an OBJ file names are never opened.
Shape legend: N vertices, P polygons.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np

from foundry3d.data.formats.polygons import MOST_CORNERS, triangles
from foundry3d.data.formats.raw import Raw, ascii_only, columns, lines, numbers, ramp, unix, whole
from foundry3d.errors import InputError

_OBJ_VERTEX = re.compile(rb"^[ \t]*v[ \t]+([^\n]*)", re.MULTILINE)
_OBJ_NORMAL = re.compile(rb"^[ \t]*vn[ \t]+([^\n]*)", re.MULTILINE)
_OBJ_FACE = re.compile(rb"^[ \t]*f[ \t]+([^\n]*)", re.MULTILINE)
_OBJ_BLOCK = 2**14  # lines of faces that are read at a time
_OFF_HEADER = re.compile(
    rb"\s*((?:ST)?C?N?)OFF\s*(\d{1,15})\s+(\d{1,15})(?:([ \t]+\d+)?[ \t]*\n|\s+\d+\s)",
    re.IGNORECASE,
)
_OFF_WIDTHS = {"ST": 2, "C": 4, "N": 3}  # numbers of a vertex after its coordinates
_STL_VERTEX = re.compile(rb"^[ \t]*vertex[ \t]+([^\n]*)", re.MULTILINE | re.IGNORECASE)
_STL_HEADER, _STL_FACET = 84, 50
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])


def read_obj(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """Vertices and faces of an OBJ file; polygons are cut into triangles.

    Args:
        blob: the file.
        attributes: to read: color behind the coordinates of each vertex (`v x y z r g b`), and in a
            file without faces one normal (`vn`) per vertex.

    Raises:
        InputError: no vertices, or something else than numbers in them or in a face.
    """
    blob = ascii_only(unix(blob)).replace(b"\\\n", b" ")
    rows = _OBJ_VERTEX.findall(blob)
    if not rows:
        raise InputError("expected obj vertices (lines 'v x y z'), got none; check the file")
    vertices = columns(io.BytesIO(b"\n".join(rows)))
    if len(vertices) != len(rows):
        raise InputError(
            f"expected three numbers in each of {len(rows)} obj vertices, got "
            f"{len(rows) - len(vertices)} empty ones; export the file again"
        )
    found, faces = _obj_attributes(rows, attributes), _OBJ_FACE.findall(blob)
    if not faces:
        if "normal" in attributes:
            found |= _obj_normals(_OBJ_NORMAL.findall(blob), len(rows))
        return Raw(vertices=vertices, attributes=found)
    counts, corners = _obj_corners(faces)
    if (corners < 0).any():  # counted back from the vertices above the face
        above = [match.start() for match in _OBJ_VERTEX.finditer(blob)]
        where = [match.start() for match in _OBJ_FACE.finditer(blob)]
        known = np.repeat(np.searchsorted(above, where), counts)
        corners = np.where(corners < 0, known + corners + 1, corners)
    cut = triangles(counts, corners - 1, vertices)
    return Raw(vertices=vertices, faces=cut, attributes=found)


def _obj_attributes(rows: list[bytes], wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Colours (N, 3) of vertices of six numbers each."""
    if "color" not in wanted or any(len(row.split()) != 6 for row in rows):
        return {}
    return {"color": columns(io.BytesIO(b"\n".join(rows)), chosen=(3, 4, 5))}


def _obj_normals(rows: list[bytes], vertices: int) -> dict[str, np.ndarray]:
    """Normals (N, 3) of a file with one for every vertex."""
    if len(rows) != vertices:
        return {}
    found = columns(io.BytesIO(b"\n".join(rows)))
    return {"normal": found} if len(found) == vertices else {}


def _obj_corners(faces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of each face, and their vertex numbers from 1 on, negative ones as they stand."""
    longest = max(map(len, faces))
    if longest > 64 * MOST_CORNERS:
        raise InputError(
            f"expected faces of at most {MOST_CORNERS} corners, got a line of {longest} bytes; "
            "export the file as triangles"
        )
    counts, corners = list[int](), list[np.ndarray]()
    for start in range(0, len(faces), _OBJ_BLOCK):
        text = b"\n".join(faces[start : start + _OBJ_BLOCK])
        if b"#" in text:
            text = re.sub(rb"#[^\n]*", b"", text)
        if b"/" in text:  # of 1/2/3 only the first
            text = re.sub(rb"/\S*", b"", text)
        counts += [len(line.split()) for line in text.split(b"\n")]
        corners.append(whole(numbers(text), "vertex numbers of faces"))
    found, sizes = np.concatenate(corners), np.array(counts)
    if (found == 0).any() or sizes.sum() != len(found):
        raise InputError(
            "expected obj faces of vertex numbers from 1 on, got 0 or something else; "
            "export the file again"
        )
    return sizes, found


def read_off(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """Vertices and faces of an OFF file (also COFF, NOFF, STOFF); colours are left out.

    Each vertex and face stands on a line, or, in a file with fewer lines, anywhere.

    Raises:
        InputError: no OFF file, or fewer numbers than it declares.
    """
    text = ascii_only(unix(blob))
    text = re.sub(rb"#[^\n]*", b"", text) if b"#" in text else text
    header = _OFF_HEADER.match(text)
    if header is None:
        raise InputError(
            "expected 'OFF' and the numbers of vertices, faces and edges, got something else; "
            "save the file as a plain OFF file"
        )
    rows = lines(text[header.end() :])
    vertices, faces = int(header[2]), int(header[3])
    if vertices + faces > len(rows):
        rows = _off_rows(b" ".join(rows).split(), header[1].upper(), vertices, faces)
    if vertices + faces > len(rows):
        raise InputError(
            f"expected {vertices} vertices and {faces} faces as the off header declares, got "
            f"{len(rows)} of them; the file is cut short or damaged, copy or export it again"
        )
    points = columns(io.BytesIO(b"\n".join(rows[:vertices]))) if vertices else np.zeros((0, 3))
    polygons = rows[vertices : vertices + faces]
    return Raw(vertices=points, faces=_off_faces(polygons, points) if faces else None)


def _off_rows(words: list[bytes], kinds: bytes, vertices: int, faces: int) -> list[bytes]:
    """Rows of as many vertices and faces as there are words for, wherever they stand."""
    width = 3 + sum(more for kind, more in _OFF_WIDTHS.items() if kind.encode() in kinds)
    whole_rows = min(vertices, len(words) // width)
    rows = [b" ".join(words[i * width : (i + 1) * width]) for i in range(whole_rows)]
    at = whole_rows * width
    while whole_rows == vertices and at < len(words) and len(rows) < vertices + faces:
        if not words[at].isdigit() or at + 1 + int(words[at][:9]) > len(words):
            break
        stop = at + 1 + int(words[at][:9])
        rows.append(b" ".join(words[at:stop]))
        at = stop
    return rows


def _off_faces(rows: list[bytes], vertices: np.ndarray) -> np.ndarray:
    """Triangles of rows that hold a number of corners, the corners, and perhaps a colour."""
    tokens = numbers(b"\n".join(rows))
    widths = np.array([len(row.split()) for row in rows])
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
    return triangles(counts, whole(corners, "vertex numbers of faces"), vertices)


def read_stl(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """Triangles of an STL file, packed or text.

    Raises:
        InputError: no STL file, or fewer triangles than it declares.
    """
    facets = int.from_bytes(blob[80:_STL_HEADER], "little")
    size = _STL_HEADER + facets * _STL_FACET
    named = blob[:512].lstrip()[:5].lower() == b"solid"
    notices: tuple[str, ...] = ()
    if named and len(blob) != size and b"\0" not in blob[:512]:  # packed files may say solid too
        vertices = _stl_text(unix(blob))
    elif len(blob) < max(size, _STL_HEADER):
        raise InputError(
            f"expected {facets} packed stl triangles ({size} bytes) as the header declares, got "
            f"{len(blob)} bytes; the file is cut short or damaged, copy or export it again"
        )
    else:
        packed = np.frombuffer(blob, _STL_TRIANGLE, facets, _STL_HEADER)
        vertices = packed["corners"].reshape(-1, 3)
        if len(blob) > size:
            notices = ("data after the last triangle that the header declares ignored",)
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return Raw(vertices=vertices, faces=faces, notices=notices)


def _stl_text(blob: bytes) -> np.ndarray:
    """The (3 * triangles, 3) corners of a text STL file."""
    rows = _STL_VERTEX.findall(blob)
    loops = len(re.findall(rb"\bendloop\b", blob, re.IGNORECASE))
    closed = re.search(rb"\bendsolid\b", blob[-512:], re.IGNORECASE)
    values = numbers(b"\n".join(rows))
    if len(rows) != 3 * loops or values.size != 3 * len(rows) or not closed:
        raise InputError(
            f"expected a text stl file of triangles that ends with 'endsolid', got {len(rows)} "
            f"corners for {loops} triangles; the file is cut short or damaged, export it again"
        )
    return values.reshape(-1, 3)
