"""Downloading one file, against a small server on this machine that misbehaves in the ways real ones do."""
import contextlib
import functools
import hashlib
import http.server
import threading

import pytest

from minilp.data.download import DownloadError, fetch, md5

BODY = bytes(range(256)) * 1000
SUM = hashlib.md5(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.body`; `server.script` holds one instruction for each coming request, then all goes well."""

    def do_GET(self):
        todo = self.server.script.pop(0) if self.server.script else {}
        self.server.ranges.append(self.headers.get("Range"))
        if "status" in todo:
            self.send_error(todo["status"])
            return
        if "stall" in todo:
            self.server.release.wait(5)
            return
        body, start = self.server.body, 0
        if self.headers.get("Range") and self.server.resumes:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start + todo.get('shift', 0)}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if not todo.get("no_length"):
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have had enough
            self.wfile.write(body[start:][: todo.get("cut")])  # a cut answer closes the connection early

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.body, httpd.script, httpd.ranges, httpd.resumes, httpd.release = BODY, [], [], True, threading.Event()
    httpd.url = f"http://127.0.0.1:{httpd.server_port}/file.bin"
    thread = threading.Thread(target=functools.partial(httpd.serve_forever, poll_interval=0.01))
    thread.start()
    yield httpd
    httpd.release.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def get(server, tmp_path):
    def call(**kwargs):
        path = tmp_path / "sub" / "file.bin"
        settings = dict(md5sum=SUM, size=len(BODY), pause=0.0, progress=False, timeout=5.0)
        return fetch(server.url, path, **{**settings, **kwargs})

    return call


def part(tmp_path):
    return tmp_path / "sub" / "file.bin.part"


def test_whole_file(get, server, tmp_path, capsys):
    path = get(progress=True)
    assert path.read_bytes() == BODY and path.parent.name == "sub"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert "file.bin" in capsys.readouterr().err  # the bar
    get()
    assert len(server.ranges) == 1  # there and right: not asked for again


def test_no_content_length(get, server):
    server.script = [{"no_length": True}]
    assert get().read_bytes() == BODY


def test_interrupted_then_resumed_within_one_call(get, server):
    server.script = [{"cut": 100_000}, {"cut": 50_000}]
    assert get().read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_interrupted_then_resumed_by_the_next_call(get, server, tmp_path):
    server.script = [{"cut": 100_000}]
    with pytest.raises(DownloadError, match=r"100000 of 256000 bytes.*file.bin.part is kept; the same call resumes"):
        get(retries=0)
    assert part(tmp_path).read_bytes() == BODY[:100_000] and not (tmp_path / "sub" / "file.bin").exists()
    assert get().read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-"] and not part(tmp_path).exists()


def test_server_without_ranges_starts_over(get, server):
    server.resumes = False
    server.script = [{"cut": 100_000}]
    assert get().read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-"]


def test_answer_from_another_offset_is_not_appended(get, server):
    server.script = [{"cut": 100_000}, {"shift": -10}]
    assert get().read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-", None]


def test_wrong_contents_are_deleted_and_not_asked_for_again(get, server, tmp_path):
    server.body = b"x" * len(BODY)
    with pytest.raises(DownloadError, match=f"MD5 [0-9a-f]{{32}}; expected {SUM}"):
        get()
    assert len(server.ranges) == 1 and list((tmp_path / "sub").iterdir()) == []


def test_resumed_onto_foreign_bytes_starts_over_once(get, server, tmp_path):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(b"foreign" * 1000)
    assert get().read_bytes() == BODY
    assert server.ranges == ["bytes=7000-", None]


@pytest.mark.parametrize("junk", [b"x" * len(BODY), b"x" * (len(BODY) + 5)])
def test_full_but_wrong_part_file_starts_over(get, server, tmp_path, junk):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(junk)
    assert get().read_bytes() == BODY
    assert server.ranges == [None]


def test_shorter_file_on_the_server_than_ours(get, server, tmp_path):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(BODY[:-1])
    server.body = BODY[:1000]
    with pytest.raises(DownloadError, match="1000 of 256000 bytes"):
        get(retries=1)
    assert server.ranges == [f"bytes={len(BODY) - 1}-", None]  # 416, then from the beginning


def test_endless_answer_is_cut_off(get, server, tmp_path):
    server.body = BODY * 40
    with pytest.raises(DownloadError, match="longer than 256000 bytes"):
        get()
    assert list((tmp_path / "sub").iterdir()) == []


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 3), (429, 3)])
def test_error_answers_are_named_and_only_passing_ones_retried(get, server, status, requests):
    server.script = [{"status": status}] * 9
    with pytest.raises(DownloadError, match=f"the server answered {status}"):
        get(retries=2)
    assert len(server.ranges) == requests


def test_passing_error_then_success(get, server):
    server.script = [{"status": 503}]
    assert get().read_bytes() == BODY


def test_silent_server_times_out(get, server):
    server.script = [{"stall": True}] * 2
    with pytest.raises(DownloadError, match="timed out"):
        get(timeout=0.1, retries=1)
    assert len(server.ranges) == 2


def test_pauses_double(get, server, monkeypatch):
    slept = []
    monkeypatch.setattr("minilp.data.download.time.sleep", slept.append)
    server.script = [{"status": 500}] * 9
    with pytest.raises(DownloadError):
        get(retries=3, pause=0.5)
    assert slept == [0.5, 1.0, 2.0]


def test_connection_refused(server, tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as gone:
        url = f"http://127.0.0.1:{gone.server_port}/x"
    with pytest.raises(DownloadError, match=r"could not download http://127.0.0.1:.*refused"):
        fetch(url, tmp_path / "x", md5sum=SUM, size=1, retries=1, pause=0.0, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "cifar.tar.gz"])
def test_only_http(url, tmp_path):
    with pytest.raises(ValueError, match=r"url: got .*expected an http or https address"):
        fetch(url, tmp_path / "x", md5sum=SUM, size=1)


def test_another_file_in_the_way_is_not_overwritten(get, server, tmp_path):
    part(tmp_path).parent.mkdir()
    (tmp_path / "sub" / "file.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"file.bin exists, but is not the expected file"):
        get()
    assert (tmp_path / "sub" / "file.bin").read_bytes() == b"mine" and server.ranges == []


def test_md5(tmp_path):
    (tmp_path / "f").write_bytes(BODY)
    assert md5(tmp_path / "f") == SUM
