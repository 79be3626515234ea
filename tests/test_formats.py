"""What real files hold and public bug reports describe: each case is read right or refused."""

from __future__ import annotations

import io
import struct
import zlib

import lazrs
import numpy as np
import pytest
from test_files import (
    CLOUD,
    CLOUDS,
    LAS_POINTS,
    LEVELS,
    MESHES,
    ROWS,
    las,
    npy,
    npz,
    refused,
    same_as,
    write,
)

from foundry3d.config import DataConfig
from foundry3d.config.reading import column_names
from foundry3d.data.archive import read_archive
from foundry3d.data.clouds import Clouds
from foundry3d.data.files import read_clouds, read_points
from foundry3d.embed.clouds import as_array
from foundry3d.errors import InputError

# ---------------------------------------------------------------- las and laz


def with_record(owner: bytes, count: int = 1) -> bytes:
    """A las file with one variable-length record, and `count` of them declared."""
    plain = las(LEVELS)
    record = struct.pack("<H16sHH32s", 0, owner, 1, 3, b"") + b"abc"
    head = bytearray(plain[:227])
    struct.pack_into("<II", head, 96, 227 + len(record), count)
    return bytes(head) + record + plain[227:]


def chunked_laz(levels: np.ndarray, sizes: list[int]) -> bytes:
    """Point format 0 in chunks of different numbers of points."""
    record = lazrs.LazVlr.new_for_compression(0, 0, use_variable_size_chunks=True)
    table = np.zeros(len(levels), [("p", "<i4", 3), ("rest", "u1", 8)])
    table["p"] = levels
    stream = io.BytesIO()
    packer = lazrs.LasZipCompressor(stream, record)
    at = 0
    for size in sizes:
        packer.compress_many(table[at : at + size].tobytes())
        packer.finish_current_chunk()
        at += size
    packer.done()
    data, body = bytes(record.record_data()), stream.getvalue()
    found = struct.pack("<H16sHH32s", 0, b"laszip encoded", 22204, len(data), b"") + data
    start = 227 + len(found)
    body = struct.pack("<q", struct.unpack_from("<q", body)[0] + start) + body[8:]
    head = bytearray(las(levels)[:227])
    struct.pack_into("<HIIBHI", head, 94, 227, start, 1, 0x80, 20, len(levels))
    return bytes(head) + found + body


def test_laz_with_chunks_of_different_sizes(tmp_path):
    path = write(tmp_path, "a.laz", chunked_laz(LEVELS, [7, 30, 1, 22]))
    np.testing.assert_array_equal(read_points(path).points, LAS_POINTS)


@pytest.mark.parametrize("owner", [b"LASF_Spec", "Vermessung Öst".encode("latin-1")])
def test_las_records_of_any_owner(tmp_path, owner):
    path = write(tmp_path, "a.las", with_record(owner))
    np.testing.assert_array_equal(read_points(path).points, LAS_POINTS)


def test_las_says_which_attributes_are_left_out(tmp_path):
    (notice,) = read_points(write(tmp_path, "a.las", las(LEVELS))).notices
    assert notice.startswith("attributes intensity, return_number") and "ignored" in notice


def test_las_with_more_records_than_bytes_is_refused_at_once(tmp_path):
    refused(write(tmp_path, "a.las", with_record(b"me", 2**32 - 1)), "4294967295 records")


def test_las_with_extra_bytes_that_nothing_declares(tmp_path):
    table = np.zeros(60, [("p", "<i4", 3), ("rest", "u1", 13)])
    table["p"] = LEVELS
    head = bytearray(las(LEVELS)[:227])
    struct.pack_into("<H", head, 105, 25)
    path = write(tmp_path, "a.las", bytes(head) + table.tobytes() + b"trailing")
    np.testing.assert_array_equal(read_points(path).points, LAS_POINTS)


# ---------------------------------------------------------------- arrays


def test_arrays_that_lie_the_other_way_round_are_refused(tmp_path):
    refused(write(tmp_path, "a.npy", npy(CLOUD.T)), "(3, 60)", "transpose?")
    refused(write(tmp_path, "b.npy", npy(np.stack([CLOUD.T] * 2))), "(2, 3, 60)", "transpose?")
    three = write(tmp_path, "c.npy", npy(CLOUD[:3]))
    np.testing.assert_array_equal(read_points(three).points, CLOUD[:3])


def test_arrays_of_four_axes_are_refused_by_their_shape(tmp_path):
    message = refused(write(tmp_path, "a.npy", npy(np.zeros((2, 2, 4, 3)))), "(2, 2, 4, 3)")
    assert "bytes" not in message


def test_archives_that_call_their_points_xyz(tmp_path):
    path = write(tmp_path, "a.npz", npz(xyz=CLOUD, rgb=CLOUD))
    np.testing.assert_array_equal(read_points(path).points, CLOUD)


def test_arrays_of_records_are_read_by_field(tmp_path):
    records = np.zeros(60, [("intensity", "u1"), ("z", "f8"), ("y", "f4"), ("x", "f4")])
    for i, name in enumerate("xyz"):
        records[name] = CLOUD[:, i]
    cloud = read_points(write(tmp_path, "a.npy", npy(records)))
    np.testing.assert_array_equal(cloud.points, CLOUD)
    assert cloud.notices == ("fields intensity ignored",)
    many = np.stack([records, records])
    assert len(list(read_clouds(write(tmp_path, "b.npy", npy(many))))) == 2
    other = records[["intensity", "y", "x"]].copy()
    refused(write(tmp_path, "c.npy", npy(other)), "fields x, y and z", "intensity, y, x")


def with_damage(**arrays: np.ndarray) -> bytes:
    """An archive whose array `unused` cannot be unpacked."""
    data = npz(**arrays)
    at = data.index(b"unused.npy") + 60
    return data[:at] + bytes(40) + data[at + 40 :]


@pytest.mark.parametrize("keep", ["points", "xyz"])
def test_of_an_archive_only_the_points_are_unpacked(tmp_path, monkeypatch, keep):
    path = write(tmp_path, "a.npz", with_damage(**{keep: CLOUD, "unused": np.zeros(10**6)}))
    with pytest.raises(zlib.error):
        np.load(path)["unused"]
    np.testing.assert_array_equal(read_points(path).points, CLOUD)


def test_data_sets_unpack_only_the_arrays_they_know(tmp_path):
    path = write(tmp_path, "a.npz", with_damage(points=CLOUD[None], unused=np.zeros(10**6)))
    np.testing.assert_array_equal(read_archive(path).points, CLOUD[None])


def test_masked_arrays_are_refused():
    masked = np.ma.masked_array(CLOUD, np.arange(180).reshape(60, 3) < 3)
    with pytest.raises(InputError, match="masked"):
        as_array(masked, "cloud 0")
    with pytest.raises(InputError, match="masked array"):
        Clouds(points=masked[None], labels=np.full(1, -1))


# ---------------------------------------------------------------- text: marks and line ends

MARK = b"\xef\xbb\xbf"
TEXT_FILES = {
    name: data
    for name, data in {**CLOUDS, **{f"mesh.{name}": data for name, data in MESHES.items()}}.items()
    if data.isascii() and b"\0" not in data
}


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_byte_order_mark_costs_nothing(tmp_path, name):
    same_as(tmp_path, name, TEXT_FILES[name], MARK + TEXT_FILES[name])


@pytest.mark.parametrize("name", TEXT_FILES)
@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_lines_may_end_as_on_any_system(tmp_path, name, end):
    data = TEXT_FILES[name].replace(b"\r\n", b"\n")
    same_as(tmp_path, name, data, data.replace(b"\n", end))


@pytest.mark.parametrize("name", ["binary.pcd", "little.ply"])
def test_headers_of_packed_files_may_end_lines_with_cr(tmp_path, name):
    mark = b"DATA binary\n" if name.endswith("pcd") else b"end_header\n"
    head, body = CLOUDS[name].split(mark)
    changed = (head + mark).replace(b"\n", b"\r") + body
    same_as(tmp_path, name, CLOUDS[name], changed)


@pytest.mark.parametrize("strange", ["Å", "\x0c", "\x1c", "\u2028", "座標", "\x85", "\xa0"])
def test_nothing_else_ends_a_line(tmp_path, strange):
    note = f"# {strange} {strange}\n".encode()
    for name in ("a.obj", "a.off"):
        head, _, rest = MESHES[name].partition(b"\n")
        same_as(tmp_path, name, MESHES[name], head + b"\n" + note + rest)
    same_as(tmp_path, "comment.txt", CLOUDS["comment.txt"], note + CLOUDS["comment.txt"])
    comment = f"ply\ncomment {strange}\n".encode()
    same_as(tmp_path, "a.ply", MESHES["ascii.ply"], MESHES["ascii.ply"].replace(b"ply\n", comment))
    latin = b"# \xc5\x85\xa0\n"
    same_as(tmp_path, "b.off", MESHES["a.off"], MESHES["a.off"].replace(b"# note\n", latin))


def test_millions_of_empty_lines_cost_little(tmp_path, bounded):
    gap = b"\n" * 10**7
    for name, data in (("a.xyz", CLOUDS["a.xyz"]), ("joined.off", CLOUDS["joined.off"])):
        first, _, rest = data.partition(b"\n")
        same_as(tmp_path, name, data, first + gap + rest)


# ---------------------------------------------------------------- tables


def table(header: str, order: str = "txyz", separator: str = ",") -> bytes:
    """Rows with a time stamp, their columns in this order, below a header."""
    rows = [[str(i), *row.split()] for i, row in enumerate(ROWS)]
    picked = [separator.join(row["txyz".index(c)] for c in order) for row in rows]
    return "\n".join([header, *picked]).encode()


@pytest.mark.parametrize(
    ("header", "order"),
    [
        (",x,y,z", "txyz"),
        ("timestamp,z,y,x", "tzyx"),
        ('"Points:0","Points:1","Points:2"', "xyz"),
        ("intensity,Points_0,Points_1,Points_2", "txyz"),
        ("t,pos_x,pos_y,pos_z", "txyz"),
        ("t,Position X,Position Y,Position Z", "txyz"),
        ("t,x_coord,y_coord,z_coord", "txyz"),
        ("x [m],y [m],z [m],time [s]", "xyzt"),
        ("t,X(mm),Y(mm),Z(mm)", "txyz"),
        ("field.t,field.x,field.y,field.z", "txyz"),
        ("id,Easting,Northing,Elevation", "txyz"),
        ("pos_x,x,y,z", "txyz"),
        ("// t,X,Y,Z", "txyz"),
        ("#t,x,y,z", "txyz"),
    ],
)
def test_columns_are_found_by_their_names(tmp_path, header, order):
    path = write(tmp_path, "a.csv", table(header, order))
    np.testing.assert_array_equal(read_points(path).points, CLOUD)
    spaced = write(tmp_path, "a.txt", table(header.replace(",", "\t"), order, "\t"))
    if header[0] not in "," and "Position X" not in header:
        np.testing.assert_array_equal(read_points(spaced).points, CLOUD)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (table("t,a,b,c"), ["got t, a, b, c", "--columns"]),
        (table("time,lat,lon,alt"), ["time, lat, lon, alt"]),
        (table("t,pos_x,position_x,y", "txyz"), ["pos_x"]),
        (table("x,y,z"), ["3 columns", "got 4", "--columns x=1"]),
        (b"1,5 2,5 3,5\n2,5 2,5 3,5\n", ["decimal point", "1,5 2,5"]),
        (b"1,5;2,5;3,5\n1;2;3\n", ["decimal point"]),
        (b"2.0D+00 1.0D+00 1.0D+00\n1 2 3\n", ["2.0D+00"]),
        (b"1 2 3\n2.0D+00 1.0D+00 1.0D+00\n", ["2.0D+00"]),
        (b"1;2;3\n1,5;2,5;3,5\n", ["1,5"]),
        (b"1_0 2 3\n1 2 3\n", ["1_0"]),
    ],
)
def test_tables_that_could_be_misread_are_refused(tmp_path, data, words):
    refused(write(tmp_path, "a.csv", data), *words)


def test_columns_by_name_or_number(tmp_path):
    path = write(tmp_path, "a.csv", table("t,a,B c,Höhe"))
    for columns in ({"x": "A", "y": "b C", "z": "Höhe"}, {"x": "2", "y": "3", "z": "4"}):
        np.testing.assert_array_equal(read_points(path, columns=columns).points, CLOUD)
    refused(path, "'lat'", "t, a", columns={"x": "lat", "y": "a", "z": "t"})
    plain = write(tmp_path, "b.csv", CLOUDS["a.xyz"])
    found = read_points(plain, columns={"x": "3", "y": "1", "z": "2"})
    np.testing.assert_array_equal(found.points, CLOUD[:, [2, 0, 1]])
    refused(plain, "no header", columns={"x": "lat", "y": "1", "z": "2"})
    refused(plain, "at least three", columns={"x": "9", "y": "1", "z": "2"})


def test_the_option_columns_is_read():
    assert column_names("x=a, y=b c,z=3") == {"x": "a", "y": "b c", "z": "3"}
    assert column_names("z=c,x=Points:0,y=a,b") == {"z": "c", "x": "Points:0", "y": "a,b"}
    for wrong in ("", "x=a,y=b", "x=a,y=b,z=", "a,b,c", "x=1,x=2,y=3,z=4"):
        with pytest.raises(InputError, match="x=NAME,y=NAME,z=NAME"):
            column_names(wrong)
    with pytest.raises(InputError, match="drop, refuse"):
        DataConfig(invalid="keep")  # type: ignore[arg-type]


def test_a_comment_of_other_words_names_no_columns(tmp_path):
    path = write(tmp_path, "a.xyz", b"# columns x y z\n" + CLOUDS["a.xyz"])
    np.testing.assert_array_equal(read_points(path).points, CLOUD)


def test_quoted_numbers(tmp_path):
    rows = "\n".join(",".join(f'"{word}"' for word in row.split()) for row in ROWS)
    for name, head in (("a.csv", ""), ("b.csv", '"x","y","z"\n')):
        found = read_points(write(tmp_path, name, head + rows))
        np.testing.assert_array_equal(found.points, CLOUD)


def test_several_scans_in_one_pts_file(tmp_path):
    parts = [ROWS[:10], ROWS[10:11], ROWS[11:]]
    scans = "\n".join(f"{len(part)}\n" + "\n".join(part) for part in parts)
    path = write(tmp_path, "a.pts", scans)
    np.testing.assert_array_equal(read_points(path).points, CLOUD)
    refused(write(tmp_path, "b.pts", scans.replace("\n1\n", "\n2\n")), "expected 2 points", "got 1")
