"""Headers from a hub: a local server stands for it, which answers range requests as the real one does."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from pintpot.errors import ModelFileError, PintpotError, UnsupportedError, UsageError
from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl
from pintpot.planner.memory import weigh_file
from pintpot.spec import ModelSpec
from pintpot.store.hub import Hub, HubError, HubModel
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

REPO = "someone/Toy-GGUF"
MODEL = HubModel(REPO)


@dataclass
class Server:
    """What the stand-in has and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)  # for lists of repositories
    listing: bytes | None = None  # instead of the files'
    page: int = 1000  # files a page of the list
    status: int = 0  # instead of a file
    delay: threading.Event | None = None
    url: str = ""

    def hub(self, **settings) -> Hub:
        return Hub(self.url, **{"first_bytes": 256, "timeout_s": 5.0} | settings)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if state.delay is not None:
                state.delay.wait(10)
                return
            path, _, query = unquote(self.path).partition("?")
            if path == "/api/models":
                state.queries.append(query)
                self.send_response(200)
                self._send(state.listing or b"[]")
            elif path == f"/api/models/{REPO}/tree/main":
                self._list(int(match[1]) if (match := re.search(r"cursor=(\d+)", query)) else 0)
            elif path.startswith(f"/{REPO}/resolve/main/"):
                self._file(path.removeprefix(f"/{REPO}/resolve/main/"))
            elif path.startswith("/cdn/"):
                self._piece(state.files[path.removeprefix("/cdn/")])
            else:
                self.send_error(404)

        def _list(self, start: int) -> None:
            items = [{"type": "directory", "path": "Q8_0"}] if start == 0 else []
            names = sorted(state.files)[start : start + state.page]
            items += [{"type": "file", "path": n, "size": len(state.files[n])} for n in names]
            body = json.dumps(items).encode() if state.listing is None else state.listing
            self.send_response(200)
            if start + state.page < len(state.files):
                url = f"{state.url}/api/models/{REPO}/tree/main?cursor={start + state.page}"
                self.send_header("Link", f'<{url}>; rel="next"')
            self._send(body)

        def _file(self, name: str) -> None:
            if state.status:
                self.send_response(state.status)
                self._send(state.files[name])
                return
            self.send_response(302)  # as the hub, to where files are stored
            self.send_header("Location", f"{state.url}/cdn/{name}")
            self._send(b"")

        def _piece(self, data: bytes) -> None:
            start, stop = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
            state.ranges.append((start, stop + 1))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop}/{len(data)}")
            self._send(data[start : stop + 1])

        def _send(self, body: bytes) -> None:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def finish(self) -> None:
            with contextlib.suppress(ConnectionError):  # one test hangs up
                super().finish()

        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield state
        if state.delay is not None:
            state.delay.set()
        http.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "toy-Q4_K_M.gguf"
    write_model(path, TOYS["qwen3moe"], quant="Q4_K_M")
    return path


def small(path: Path, metadata: dict, tensors: dict[str, np.ndarray]) -> bytes:
    declared = [TensorDecl(name, GGMLType.F32, data.shape[::-1]) for name, data in tensors.items()]
    with GGUFWriter(path, metadata, declared) as writer:
        for name, data in tensors.items():
            writer.write(name, data)
    return path.read_bytes()


def test_a_header_is_all_that_is_read(server: Server, toy: Path) -> None:
    server.files["toy-Q4_K_M.gguf"] = toy.read_bytes()
    quant, file = server.hub().open_header(MODEL)
    whole = GGUFFile.open(toy)
    assert quant == "Q4_K_M"
    assert list(file.metadata) == list(whole.metadata)
    assert file.metadata["tokenizer.ggml.tokens"] == whole.metadata["tokenizer.ggml.tokens"]
    sizes = {name: (t.ggml_type, t.ne, t.nbytes) for name, t in whole.tensors.items()}
    assert {name: (t.ggml_type, t.ne, t.nbytes) for name, t in file.tensors.items()} == sizes
    assert weigh_file(file, ModelSpec.from_gguf(file)) == weigh_file(whole, ModelSpec.from_gguf(whole))


def test_requests_grow_and_never_ask_twice(server: Server, toy: Path) -> None:
    server.files["toy-Q4_K_M.gguf"] = toy.read_bytes()
    server.hub().open_header(MODEL)
    data_start = GGUFFile.open(toy).header.data_start
    starts, stops = zip(*server.ranges, strict=True)
    assert len(server.ranges) > 2
    assert starts == (0, *stops[:-1])
    assert stops == tuple(256 * 4**i for i in range(len(stops)))
    assert stops[-2] < data_start <= stops[-1] < toy.stat().st_size


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (["a-Q4_K_M.gguf", "a-Q8_0.gguf"], "", "a-Q4_K_M.gguf"),
        (["a-Q4_K_M.gguf", "a-Q8_0.gguf"], "Q8_0", "a-Q8_0.gguf"),
        (["a-q6_k.gguf"], "", "a-q6_k.gguf"),
        (["Q8_0/a-Q8_0.gguf", "a-mmproj-Q8_0.gguf", "imatrix.gguf"], "Q8_0", "Q8_0/a-Q8_0.gguf"),
        (["a-UD-Q4_K_XL.gguf", "a-Q4_K_M.gguf"], "UD-Q4_K_XL", "a-UD-Q4_K_XL.gguf"),
        (["Q4_K_M.gguf", "Q8_0.gguf"], "", "Q4_K_M.gguf"),
        (["model.gguf", "README.md"], "", "model.gguf"),
    ],
)
def test_the_file_is_chosen_by_its_name(server: Server, names, wanted, chosen) -> None:
    server.files = dict.fromkeys(names, b"")
    asked = HubModel.parse(f"hf.co/{REPO}" + (f":{wanted}" if wanted else ""))
    _, parts = server.hub().choose(asked)
    assert [part.path for part in parts] == [chosen]


def test_lists_of_several_pages(server: Server) -> None:
    server.files = {f"a{i}-Q8_0.gguf": b"" for i in range(7)}
    server.page = 3
    assert len(server.hub().files(MODEL)) == 7


def test_the_gguf_repository_of_a_model(server: Server) -> None:
    server.listing = b'[{"id": "a/Toy-GGUF", "downloads": 9}]'
    assert server.hub().gguf_repo_of("someone/Toy") == "a/Toy-GGUF"
    (query,) = server.queries
    assert "filter=base_model:quantized:someone/Toy&filter=gguf" in unquote(query)
    for listing, says in (
        (b"[]", "knows no GGUF repository"),
        (b'[{"id": "../x"}]', "knows no GGUF repository"),
        (b'{"error": 1}', "none that this version can read"),
        (b"<html>", "none that this version can read"),
    ):
        server.listing = listing
        with pytest.raises(HubError, match=says):
            server.hub().gguf_repo_of("someone/Toy")


def test_the_parts_of_a_split_are_one_model(server: Server, tmp_path: Path) -> None:
    parts = [f"big/toy-Q8_0-0000{i}-of-00002.gguf" for i in (1, 2)]
    for i, name in enumerate(parts):
        server.files[name] = small(
            tmp_path / f"{i}.gguf", {"split.count": 2, "n": i}, {f"t{i}": np.zeros((2, 3 + i), np.float32)}
        )
    quant, file = server.hub().open_header(MODEL)
    assert quant == "Q8_0"
    assert file.metadata["n"] == 0
    assert {name: (t.nbytes, t.part) for name, t in file.tensors.items()} == {"t0": (24, 0), "t1": (32, 1)}
    server.files[parts[1]] = server.files[parts[0]]
    with pytest.raises(ModelFileError, match="tensor t0 is in an earlier part already"):
        server.hub().open_header(MODEL)
    del server.files[parts[1]]
    with pytest.raises(HubError, match=r"00002-of-00002\.gguf: this part of the model is missing"):
        server.hub().open_header(MODEL)


def test_addresses() -> None:
    for text in (
        "hf.co/u/r.b-GGUF:q4_k_m",
        "huggingface.co/u/r.b-GGUF:Q4KM",
        "https://hf.co/u/r.b-GGUF:Q4_K_M",
    ):
        assert HubModel.parse(text) == HubModel("u/r.b-GGUF", "Q4_K_M")
    assert HubModel.parse("hf.co/u/r") == HubModel("u/r")
    for text in ("u/r", "hf.co/u", "example.com/u/r", "qwen3:8b", "hf.co/u/r/x.gguf"):
        assert HubModel.parse(text) is None
    with pytest.raises(UsageError, match="tiny is no quantization, expected one such as Q4_K_M"):
        HubModel.parse("hf.co/u/r:tiny")


def refusal(hub: Hub, model: HubModel = MODEL) -> PintpotError:
    with pytest.raises(PintpotError) as caught:
        hub.open_header(model)
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_not_there(server: Server) -> None:
    assert str(refusal(server.hub(), HubModel("no/body"))) == (
        "hf.co/no/body: is not there, or not public (HTTP 404); check the name"
    )
    assert "holds no .gguf file" in str(refusal(server.hub()))
    server.files = {"a-Q8_0.gguf": b"", "a-Q6_K.gguf": b""}
    error = refusal(server.hub())
    assert isinstance(error, UsageError)
    assert "has no Q4_K_M file, but Q6_K, Q8_0" in str(error)


@pytest.mark.parametrize(
    "listing",
    [b"<html>", b"[1]", b"{}", b'[{"type": "file"}]', b'[{"type":"file","path":"a.gguf","size":null}]'],
)
def test_a_list_that_is_none(server: Server, listing: bytes) -> None:
    server.listing = listing
    assert re.search("list of files is none|holds no .gguf file", str(refusal(server.hub())))


def test_damaged_files(server: Server, toy: Path) -> None:
    data = toy.read_bytes()
    server.files["toy-Q4_K_M.gguf"] = b"<html>" * 1000
    assert "is no GGUF file" in str(refusal(server.hub()))
    assert server.ranges == [(0, 256)]
    server.files["toy-Q4_K_M.gguf"] = data[: GGUFFile.open(toy).header.data_start // 2]
    assert "hf.co/someone/Toy-GGUF/toy-Q4_K_M.gguf: " in str(refusal(server.hub()))


def test_types_of_unknown_size(server: Server, tmp_path: Path) -> None:
    header = small(tmp_path / "a.gguf", {}, {"strange": np.zeros(2, np.float32)})
    at = header.index(b"strange") + len(b"strange") + 4 + 8
    server.files["a-Q8_0.gguf"] = header[:at] + (4000).to_bytes(4, "little") + header[at + 4 :]
    error = refusal(server.hub())
    assert isinstance(error, UnsupportedError)
    assert "tensor strange is of type 4000, whose size this version does not know" in str(error)


def test_servers_that_do_otherwise(server: Server, toy: Path) -> None:
    server.files["toy-Q4_K_M.gguf"] = toy.read_bytes()
    server.status = 200
    assert "the server sends whole files only" in str(refusal(server.hub()))
    server.status = 503
    assert "the server answers HTTP 503" in str(refusal(server.hub()))


def test_a_server_that_does_not_answer(server: Server) -> None:
    server.delay = threading.Event()
    assert "no answer within 0.05 s; try again" in str(refusal(server.hub(timeout_s=0.05)))


def test_offline() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}"
    error = str(refusal(Hub(url)))
    assert error.startswith(f"hf.co/{REPO}: {url} cannot be reached (")
    assert error.endswith("offline, give the path of a GGUF file or a model of the catalog")
