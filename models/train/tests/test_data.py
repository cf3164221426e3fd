"""The loader's checks, on files made here."""

import hashlib
import http.server
import threading
import zipfile

import numpy as np
import pytest

from picket_train import data

NORMAL = ("2,tcp,http,SF,100,49,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,4,8,0.00,0.00,0.00,0.00,1.00,"
          "0.00,0.00,255,250,0.98,0.01,0.00,0.00,0.00,0.00,0.00,0.00,normal,20\n")
ATTACK = NORMAL.replace("tcp,http,SF", "tcp,private,S0").replace("normal", "neptune")


@pytest.fixture
def small(monkeypatch):
    sha256 = hashlib.sha256((NORMAL + ATTACK).encode()).hexdigest()
    part = data.Part("KDDTrain+.txt", 2, sha256)
    monkeypatch.setattr(data, "PARTS", {"train": part})
    return part


def test_codes_and_ratios():
    frame = data.parse_nslkdd((NORMAL + ATTACK).encode(), "x", 2)
    rows = data.features(frame, ["service", "flag", "protocol_type", "service=http", "flag=S0",
                                 "burstiness", "symmetry_ratio", "is_signaling"])
    assert rows.dtype == np.float32
    assert rows[0].tolist() == pytest.approx([24, 0, 0, 1, 0, 8 / 2.001, 2, 0])
    assert rows[1, :5].tolist() == [49, 1, 0, 0, 1]
    assert data.labels(frame).tolist() == [0, 1]


def test_dictionary():
    assert len(data.COLUMNS) == 43 and len(data.HEADER) == 28
    assert len(data.SERVICES) == 70 and data.SERVICES[:4] == ["IRC", "X11", "Z39_50", "aol"]
    assert len(data.FAMILY) == 39


@pytest.mark.parametrize("text, message", [
    ("1,2,3\n", "3 columns"),
    (NORMAL, "1 rows, expected 2: is it truncated"),
    (NORMAL + NORMAL.replace("http", "htp"), "column service holds .'htp'"),
    (NORMAL + NORMAL.replace("normal", "odd"), "column label holds .'odd'"),
    (NORMAL + NORMAL.replace("2,tcp", "x,tcp"), "column duration holds"),
    (NORMAL + NORMAL.replace("2,tcp", ",tcp"), "column duration holds"),
    ("", "not the comma-separated text"),
    (NORMAL + "1,2\n" + NORMAL + "1" + NORMAL[:-1] + ",9\n", "not the comma-separated text"),
])
def test_bad_text(text, message):
    with pytest.raises(data.DataError, match=message):
        data.parse_nslkdd(text.encode(), "KDDTrain+.txt", 2)


def test_zip_folder_and_line_endings(small, tmp_path, capsys):
    (tmp_path / small.file).write_bytes((NORMAL + ATTACK).replace("\n", "\r\n").encode())
    with zipfile.ZipFile(tmp_path / "n.zip", "w") as archive:
        archive.writestr("NSL-KDD/" + small.file, NORMAL + ATTACK)
    for path in (tmp_path, tmp_path / "n.zip"):
        frames, hashes = data.load_nslkdd(path, parts=("train",))
        assert len(frames["train"]) == 2 and hashes[small.file] == small.sha256
    assert "warning" not in capsys.readouterr().err
    (tmp_path / small.file).write_text(NORMAL + NORMAL)
    data.load_nslkdd(tmp_path, parts=("train",))
    assert "warning: KDDTrain+.txt has SHA-256" in capsys.readouterr().err


def test_missing(small, tmp_path):
    with pytest.raises(data.DataError, match="does not exist: give --data"):
        data.load_nslkdd(tmp_path / "no.zip", parts=("train",))
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(data.DataError, match="neither a folder nor a readable zip"):
        data.load_nslkdd(tmp_path / "text.zip", parts=("train",))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(data.DataError, match="holds no KDDTrain"):
        data.load_nslkdd(tmp_path / "empty.zip", parts=("train",))


def test_download(small, tmp_path):
    asked = []

    class Mirror(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["User-Agent"]))
            body = (NORMAL + ATTACK).encode()
            self.send_response(200 if "part" not in self.path else 404)
            self.send_header("Content-Length", len(body) + (7 if "cut" in self.path else 0))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mirror = f"http://127.0.0.1:{server.server_port}/"
    try:
        data.download_nslkdd(tmp_path / "ok", mirror=mirror, parts=("train",))
        assert len(data.load_nslkdd(tmp_path / "ok", parts=("train",))[0]["train"]) == 2
        assert asked == [("/KDDTrain%2B.txt", f"picket-train/{data.__version__}")]
        for path, message in (("cut/", "bytes came"), ("part/", "404")):
            with pytest.raises(data.DataError, match=message):
                data.download_nslkdd(tmp_path / path, mirror=mirror + path, parts=("train",))
            assert list((tmp_path / path).iterdir()) == []
    finally:
        server.shutdown()
        server.server_close()
