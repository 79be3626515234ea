"""`foundry3d view` and the page of `edge/web`: what is served, and what Chromium makes of it."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from foundry3d import cli
from foundry3d.config import ViewConfig
from foundry3d.data.files import read_points
from foundry3d.errors import InputError
from foundry3d.export import view as viewing

ROOT = Path(__file__).parents[1]
WEB = ROOT / "edge" / "web"
DATA = Path(__file__).parent / "data" / "web"
NODE = shutil.which("node")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MODELS = [DATA / "gated-10.onnx", DATA / "gated-4.onnx"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder like a built page, without what only a browser needs."""
    folder = tmp_path / "page"
    (folder / "ort").mkdir(parents=True)
    (folder / "index.html").write_text("<p>page</p>")
    (folder / "ort" / "a.wasm").write_bytes(b"\0asm")
    (folder / "worker.js").write_text("1")
    return folder


@contextlib.contextmanager
def serving(table: viewing.Served) -> Iterator[int]:
    with viewing.serve(table, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def ask(port: int, path: str, method: str = "GET", host: str | None = None):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as asked:
        asked.request(method, path, headers={} if host is None else {"Host": host})
        answer = asked.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_page_models_and_clouds_are_served_with_types_and_isolation(page: Path) -> None:
    with serving(viewing.served(page, MODELS, [DATA / "cloud.ply"])) as port:
        kinds = {
            "/": "text/html",
            "/worker.js": "text/javascript",
            "/ort/a.wasm": "application/wasm",
        }
        for path, kind in kinds.items():
            status, headers, _ = ask(port, path)
            assert status == 200
            assert headers["Content-Type"].startswith(kind)
            assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        listed = json.loads(ask(port, "/manifest.json")[2])
        assert [Path(name).name for name in listed["models"]] == ["gated-10.onnx", "gated-4.onnx"]
        for kind, paths in (("models", MODELS), ("clouds", [DATA / "cloud.ply"])):
            for address, path in zip(listed[kind], paths, strict=True):
                assert ask(port, f"/{address}")[2] == path.read_bytes()
        status, headers, body = ask(port, "/worker.js", "HEAD")
        assert (status, headers["Content-Length"], body) == (200, "1", b"")


def test_names_need_not_be_addresses_and_may_be_equal(page: Path, tmp_path: Path) -> None:
    clouds = [tmp_path / f / "a #1 %20é.xyz" for f in ("one", "two")]
    for number, path in enumerate(clouds):
        path.parent.mkdir()
        path.write_text(f"{number} 0 0\n")
    with serving(viewing.served(page, MODELS[:1], clouds)) as port:
        listed = json.loads(ask(port, "/manifest.json")[2])["clouds"]
        assert [ask(port, f"/{address}")[2][:1] for address in listed] == [b"0", b"1"]


def test_nothing_else_is_served(page: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with serving(viewing.served(page, MODELS[:1], [])) as port:
        for path in ("/../secret", "/%2e%2e/secret", f"/{tmp_path}/secret", "/ort", "/models/0/"):
            assert ask(port, path)[0] == 404
        assert ask(port, "/", host=f"localhost:{port}")[0] == 200
        assert ask(port, "/", host="somewhere.example")[0] == 403


def test_formats_that_the_page_does_not_read_become_ply(page: Path, tmp_path: Path) -> None:
    points = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "cloud.npy", points)
    table = viewing.served(page, MODELS[:1], [tmp_path / "cloud.npy"])
    content = table["clouds/0/cloud.npy.ply"]
    assert isinstance(content, bytes)
    (tmp_path / "back.ply").write_bytes(content)
    assert np.array_equal(read_points(tmp_path / "back.ply").points, points)


def test_wrong_files_are_refused(page: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "other.onnx").write_bytes(b"\x08\x01")
    (tmp_path / "cut.onnx").write_bytes(MODELS[0].read_bytes()[:5000])
    for files, sentence in (
        ((tmp_path / "other.onnx",), "expected an .onnx file that foundry3d export has written"),
        ((tmp_path / "cut.onnx",), "expected an .onnx file that foundry3d export has written"),
        ((tmp_path / "none.onnx",), "no such file"),
        ((MODELS[0], tmp_path / "none.xyz"), "no such file"),
        ((MODELS[0], DATA / "classifier.onnx"), "exports of different checkpoints"),
        ((DATA / "cloud.ply",), "name an exported model"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["view", *map(str, files), "--page", str(page), "--no_browser"])
        assert stopped.value.code == 2
        assert sentence in capsys.readouterr().err


def test_a_page_that_is_not_built_and_a_port_that_is_taken_are_named(
    page: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="make web"):
        viewing.served(tmp_path, MODELS, [])
    with (
        serving(viewing.served(page, MODELS, [])) as port,
        pytest.raises(InputError, match="leave --port out"),
    ):
        viewing.serve({}, port)


def test_the_browser_is_opened_unless_told_otherwise(page: Path, monkeypatch, capsys) -> None:
    opened = []
    monkeypatch.setattr(viewing.webbrowser, "open", opened.append)
    monkeypatch.setattr(viewing.ThreadingHTTPServer, "serve_forever", interrupted)
    for quiet in (False, True):
        viewing.view(ViewConfig(files=(str(MODELS[0]),), page=str(page), no_browser=quiet))
        assert "http://127.0.0.1:" in capsys.readouterr().out
    assert len(opened) == 1


def interrupted(server: object) -> None:
    raise KeyboardInterrupt


def run_node(*words: str) -> subprocess.CompletedProcess[str]:
    assert NODE is not None
    return subprocess.run([NODE, *words], capture_output=True, text=True, cwd=WEB, timeout=500)


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_modules_of_the_page() -> None:
    files = sorted(str(path.relative_to(WEB)) for path in WEB.glob("test/*.test.js"))
    ran = run_node("--test", *files)
    assert ran.returncode == 0, ran.stdout


@pytest.fixture(scope="module")
def driven(tmp_path_factory) -> dict:
    """What the page showed and saved in Chromium."""
    if NODE is None or CHROMIUM is None:
        pytest.skip("needs node and chromium")
    if not (viewing.PAGE / "index.html").is_file() or not (WEB / "node_modules").is_dir():
        pytest.skip("the page is not built; run `make web`")
    pictures = os.environ.get("FOUNDRY3D_PICTURES") or str(tmp_path_factory.mktemp("pictures"))
    given = [DATA / name for name in ("cloud.ply", "classifier.onnx", "segmenter-outside.onnx")]
    with serving(viewing.served(viewing.PAGE, MODELS, [DATA / "cloud.ply"])) as port:
        address = f"http://127.0.0.1:{port}/"
        ran = run_node("test/browser.js", CHROMIUM, address, *map(str, given), pictures)
    assert ran.returncode == 0, ran.stderr
    return {**json.loads(ran.stdout), "pictures": pictures}


def test_outputs_in_chromium_are_those_of_torch(driven: dict) -> None:
    expected = json.loads((DATA / "expected.json").read_text())
    for step, name in (
        ("dropped", "gated-10"),
        ("slid", "gated-4"),
        ("headed", "classifier"),
        ("parts", "segmenter-outside"),
    ):
        for output, values in expected[name].items():
            found = np.array(driven[step][output])
            assert found.shape == np.shape(values), (name, output)
            assert np.abs(found - values).max() < 1e-4, (name, output)


def test_clicks_keys_and_wrong_files_in_chromium(driven: dict) -> None:
    assert driven["isolated"] is True
    assert driven["place"] == "CPU, 2 threads"
    assert driven["mode"] == "similarity"
    assert "ringed point" in driven["explained"]
    assert "ms network" in driven["times"]
    assert driven["bars"][0].startswith("table")
    assert driven["featuresOff"] is True
    assert driven["partNames"] in ("leg", "seat", "legseat")
    bad, nan, few = driven["wrong"]
    assert bad == "bad.ply: expected a ply header"
    assert nan == "nan.xyz: expected finite coordinates, got none"
    assert few.startswith("few.xyz: expected at least") and few.endswith("got 2")
    assert driven["problems"] == []  # errors of scripts, and requests to other places


def test_pictures_of_the_page_are_coloured_and_fit_a_phone(driven: dict) -> None:
    from matplotlib.image import imread

    assert driven["phoneWidth"] == 375
    pictures = {path.stem: imread(path)[..., :3] for path in Path(driven["pictures"]).glob("*.png")}
    light, dark = pictures["light-features"], pictures["dark-features"]
    assert light.mean() > 0.8 > 0.2 > dark.mean()
    for name in ("light-features", "light-similarity", "dark-features", "dark-similarity"):
        stage = pictures[name][100:, :800]  # without the legend and the panel
        assert (np.ptp(stage, axis=-1) > 0.2).sum() > 300, name  # coloured pixels
    assert np.abs(light - pictures["light-similarity"])[100:, :800].max() > 0.3
