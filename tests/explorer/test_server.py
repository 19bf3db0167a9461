"""What the served explorer answers, and what it leaves behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from disentangle.explorer import server
from disentangle.explorer.local_only import LocalOnly, find_refusal

CLIENTS = 20
# In a process of its own, as gradio leaves event loops and sockets to the garbage collector.
SERVER = """
import sys
import torch
from types import SimpleNamespace as Box
from disentangle.explore import serve
from disentangle.explorer import server
from disentangle.models import Axis

server.CLEANING = tuple(map(int, sys.argv[1:3]))
decode = lambda z: z[:, :, None, None].tanh().expand(-1, -1, 8, 8)
axes = [Axis(name, "codes", direction) for name, direction in zip("xyz", torch.eye(3))]
view = Box(model=Box(decode=decode), latents=torch.zeros(1, 3), axes=axes)
port = int(sys.argv[3]) if len(sys.argv) > 3 else None
serve("toy", view, Box(range=2.0, port=port))
"""


# Which requests are refused


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7860", "LOCALHOST:80", "127.0.0.1:7861", "[::1]:7860"]
)
def test_this_machine_is_answered_by_all_its_names(host):
    own = host.encode()
    assert find_refusal([(b"Host", own)]) is None
    assert find_refusal([(b"host", own), (b"origin", b"http://" + own)]) is None
    assert find_refusal([(b"host", own), (b"content-type", b"application/json")]) is None


@pytest.mark.parametrize(
    "host",
    [
        *(b"evil.example", b"evil.example:7860", b"localhost.evil.example", b"127.0.0.1.nip.io"),
        *(b"192.168.0.2:7860", b"0.0.0.0:7860", b"", b"[::1", b"localhost@evil.example", b"\xff"),
    ],
)
def test_a_foreign_host_is_refused(host):
    assert find_refusal([(b"host", host)]).startswith("the host must be this machine, got ")


def test_hosts_that_are_missing_or_two_are_refused():
    assert find_refusal([]) == "the host must be this machine, got none"
    assert find_refusal([(b"host", b"localhost"), (b"host", b"evil.example")]) is not None


@pytest.mark.parametrize(
    "origin",
    [
        *(b"http://evil.example", b"https://localhost:7860", b"http://localhost:3000", b"null"),
        *(b"http://127.0.0.1:7860", b"http://localhost", b"http://localhost:7860.evil.example"),
    ],
)
def test_a_foreign_origin_is_refused(origin):
    reason = find_refusal([(b"host", b"localhost:7860"), (b"origin", origin)])
    assert reason == f"the origin must be http://localhost:7860, got {origin.decode()}"


def call(scope):
    """What the middleware sends, and whether it passed the request on."""
    sent, passed = [], []

    async def app(scope, receive, send):
        passed.append(scope)

    async def send(message):
        sent.append(message)

    asyncio.run(LocalOnly(app)(scope, None, send))
    return sent, bool(passed)


def test_what_is_refused_does_not_reach_the_app():
    foreign = {"headers": [(b"host", b"evil.example")]}
    (start, body), passed = call({"type": "http", **foreign})
    assert (start["status"], passed) == (403, False)
    assert body["body"] == b"the host must be this machine, got evil.example\n"
    (closed,), passed = call({"type": "websocket", **foreign})
    assert (closed["type"], passed) == ("websocket.close", False)
    assert call({"type": "http", "headers": [(b"host", b"localhost")]}) == ([], True)
    assert call({"type": "lifespan"}) == ([], True)


# The server


class Server(NamedTuple):
    url: str
    folder: Path
    process: subprocess.Popen


@contextmanager
def running(folder, cleaning=server.CLEANING):
    """A served explorer whose pictures are in a folder."""
    pytest.importorskip("gradio")
    process = start(folder, *cleaning)
    try:
        line = next((line for line in process.stdout if "http://" in line), "")
        yield Server(line.split()[-1].rstrip("/"), folder, process)
    finally:
        process.kill()
        process.communicate()


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, *map(str, arguments)],
        env=os.environ | {"GRADIO_TEMP_DIR": str(folder), "PYTHONUNBUFFERED": "1"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("pictures")) as found:
        yield found


def ask(url, *, data=None, **headers):
    """The status and the body of an answer."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=data, headers=names)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def draw(url, *positions):
    """Moves the sliders, and waits for the picture."""
    body = json.dumps({"data": [1, *positions]}).encode()
    _, answer = ask(f"{url}/gradio_api/call/draw", data=body, content_type="application/json")
    _, events = ask(f"{url}/gradio_api/call/draw/{json.loads(answer)['event_id']}")
    assert "event: complete" in events, events
    (picture,) = json.loads(events.split("event: complete\ndata: ")[1].splitlines()[0])
    return picture["url"]


def test_the_server_answers_its_own_pages_only(server):
    for path in ("/", "/config", "/gradio_api/info"):
        assert ask(server.url + path)[0] == 200
        assert ask(server.url + path, origin=server.url)[0] == 200
        assert ask(server.url + path, host="evil.example:7860")[0] == 403
        assert ask(server.url + path, origin="http://evil.example")[0] == 403
    data = json.dumps({"data": [1, 0, 0, 0]}).encode()
    for foreign in ({"host": "evil.example"}, {"origin": "http://localhost:3000"}):
        status, reason = ask(f"{server.url}/gradio_api/call/draw", data=data, **foreign)
        assert (status, reason.startswith("the ")) == (403, True)


def test_the_app_has_a_slider_for_each_axis(server):
    parts = json.loads(ask(f"{server.url}/config")[1])["components"]
    assert [part["props"]["label"] for part in parts if part["type"] == "slider"] == ["x", "y", "z"]


def test_the_server_takes_no_files(server):
    part = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nabc\r\n--x--'
    )
    before = sorted(server.folder.rglob("*"))
    for kind, status in (("multipart/form-data; boundary=x", 403), ("text/plain", 400)):
        assert ask(f"{server.url}/gradio_api/upload", data=part, content_type=kind)[0] == status
    assert sorted(server.folder.rglob("*")) == before


def test_many_clients_at_once_get_their_pictures(server):
    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = [pool.submit(draw, server.url, k / CLIENTS, 0, 0) for k in range(CLIENTS)]
        urls = [job.result() for job in jobs]
    assert len(set(urls)) == CLIENTS  # each its own
    assert {ask(url)[0] for url in urls} == {200}


def test_many_clients_at_once_get_the_same_picture_whole(server):
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda _: ask(draw(server.url, 0, 0, 0)), range(3 * CLIENTS)))
    assert {status for status, _ in answers} == {200}  # `ask` raises if a body is cut short


def test_a_port_that_is_not_free_is_said(server, tmp_path):
    port = server.url.rsplit(":", 1)[1]
    process = start(tmp_path, *server.CLEANING, port)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert text.splitlines()[-1] == (
        f"disentangle explore: error: port {port} is not free: choose another --port"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_pictures_do_not_pile_up(tmp_path, number):
    with running(tmp_path, cleaning=(1, 1)) as server:
        for k in range(10):
            draw(server.url, k / 10, 0, 0)
        for _ in range(200):
            if len(list(tmp_path.rglob("*.png"))) == 1:  # the one that a new page starts with
                break
            time.sleep(0.1)
        assert len(list(tmp_path.rglob("*.png"))) == 1
        assert ask(draw(server.url, 0.5, 0, 0))[0] == 200
        server.process.send_signal(number)
        text, _ = server.process.communicate(timeout=60)
        assert server.process.returncode == 0, text
        assert "Traceback" not in text
        assert not list(tmp_path.rglob("*.png"))
        assert not list(tmp_path.glob("disentangle-*"))
