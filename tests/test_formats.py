"""What real files hold and public bug reports describe: each case is read right or refused."""

from __future__ import annotations

import io
import struct

import lazrs
import numpy as np
import pytest
from test_files import CLOUD, LAS_POINTS, LEVELS, las, npy, npz, refused, write

from foundry3d.data.files import read_clouds, read_points

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
