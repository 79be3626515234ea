"""What is shown: escaped names, closed pipes, small encodings."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foundry3d import cli
from foundry3d.errors import InputError, lack_of_memory
from foundry3d.report.bar import Bar
from foundry3d.report.terminal import Lines, Shown, escaped, one_line

NASTY = "a\x1b[2J\x07\x9b31m\u202e\udcff\n.ply"


def test_nothing_that_a_terminal_obeys_is_left() -> None:
    assert escaped(NASTY) == r"a\x1b[2J\x07\x9b31m\u202e\xff\x0a.ply"
    assert escaped("naïve 点云 (1).ply") == "naïve 点云 (1).ply"
    every = "".join(map(chr, range(0x3000)))
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in escaped(every))


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    long = one_line("x" * 10**6 + "end")
    assert len(long) < 3000 and long.endswith("end") and " [...] " in long


def test_log_lines_are_escaped_and_tracebacks_keep_their_lines() -> None:
    record = logging.LogRecord("foundry3d", logging.INFO, "", 0, "%s: read", (NASTY,), None)
    assert Lines("%(message)s").format(record) == escaped(NASTY) + ": read"
    try:
        raise ValueError("why")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert Lines("%(message)s").format(record).count("\n") >= 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_names_that_an_encoding_lacks_become_codes(encoding: str) -> None:
    kept = io.BytesIO()
    stream = Shown(io.TextIOWrapper(kept, encoding=encoding))
    print("點\t€", NASTY, file=stream)
    stream.flush()
    shown = kept.getvalue().decode(encoding)
    assert shown.endswith("\n") and "\t" in shown and "\x1b" not in shown
    assert ("點" in shown) == (encoding == "utf-8")
    assert ("\\u9ede" in shown) == (encoding != "utf-8")


def test_a_closed_pipe_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        stream = Shown(pipe)
        for _ in range(3):
            assert stream.write("x" * 10**5) == 10**5
            stream.flush()


def test_head_ends_a_command_quietly() -> None:
    command = f"{sys.executable} -m foundry3d pretrain --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_names_in_errors_and_tables_are_escaped(capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["embed", f"{tmp_path}/{NASTY}", "--model", f"{tmp_path}/\x1b[31m"])
    with pytest.raises(SystemExit):
        cli.main(["\x1b[31m"])
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--\x1b[31m", "2"])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and r"\x1b[31m" in err
    assert err.count("\n") == 3


def test_lack_of_memory_is_a_sentence(capsys, monkeypatch) -> None:
    real = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4e18 bytes")
    for error in (MemoryError(), real, MemoryError("Unable to allocate 8 EiB")):
        sentence = lack_of_memory(error)
        assert sentence is not None and sentence.startswith("not enough memory (")

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("foundry3d.doctor.doctor", fail)
        with pytest.raises(SystemExit) as stop:
            cli.main(["doctor"])
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert lack_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    with pytest.raises(MemoryError):
        np.empty(2**62, dtype=np.uint8)
    assert not isinstance(MemoryError(), InputError)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_one_line_in_a_terminal_and_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with caplog.at_level("INFO", logger="foundry3d"):
            bar = Bar("probing", 3, unit="models", stream=stream)
            for name in "abc":
                bar.step(name)
            bar.close()
    assert file.getvalue() == ""
    (record,) = caplog.records
    assert record.getMessage() == "probing: 3 models in 0:00, c"
    drawn = terminal.getvalue()
    assert drawn.count("\n") == 1 and drawn.endswith("\n")
    last = drawn.rstrip("\n").split("\r")[-1]
    assert last.startswith("probing") and "3/3 models" in last and last.rstrip().endswith("c")
