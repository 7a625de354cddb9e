import hashlib
import http.server
import threading
import types

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert.rules import ConversionError, to_torch
from jaxt2i.encoders import clip_names as clip
from jaxt2i.encoders import dino_names as dino
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.clip import ClipText
from jaxt2i.encoders.dino import DinoFeatures
from jaxt2i.encoders.pretrained import WeightsError

TEXT = ClipText(vocab=11, length=5, width=64, layers=2, heads=1, joint=6)
REPO = "openai/clip-vit-base-patch32"


def drawn(module):
    rng = np.random.RandomState(0)
    draw = lambda x: rng.standard_normal(x.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, pretrained.template(module))


def write(path, table, variables):
    state = {k: np.array(v, order="C") for k, v in to_torch(table, variables).items()}
    save_file(state, path)
    return path


def test_variables_are_stored_and_come_back(tmp_path):
    tree = {
        "params": {"a": {"kernel": jnp.arange(6.0).reshape(2, 3).T, "scale": np.float32(2)}},
        "stats": {"count": np.int32([3])},
    }
    file = tmp_path / "deep" / "net.safetensors"
    pretrained.save_variables(file, tree)
    jax.tree.map(np.testing.assert_array_equal, pretrained.load_variables(file), tree)
    pretrained.save_variables(file, tree, dtype=np.float16)
    half = pretrained.load_variables(file)
    assert half["params"]["a"]["kernel"].dtype == np.float32
    assert half["stats"]["count"].dtype == np.int32
    assert [f.name for f in file.parent.iterdir()] == ["net.safetensors"]
    small = file.stat().st_size
    pretrained.save_variables(file, tree)
    assert file.stat().st_size - small == 2 * 7
    file.write_bytes(b"junk")
    with pytest.raises(WeightsError, match=r"net\.safetensors: cannot be read"):
        pretrained.load_variables(file)


@pytest.mark.parametrize("table", clip.TABLES["text"], ids=["hf", "openai"])
def test_a_file_or_folder_of_either_naming_loads(tmp_path, table):
    variables = drawn(TEXT)
    file = write(tmp_path / "model.safetensors", table, variables)
    for name in (file, tmp_path):
        loaded = pretrained.load(str(name), "clip", "text")
        jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_config_json_beside_the_file_is_read(tmp_path):
    write(tmp_path / "model.safetensors", clip.HF_TEXT, drawn(TEXT))
    (tmp_path / "config.json").write_text('{"text_config": {"hidden_act": "gelu"}}')
    found = pretrained.find(str(tmp_path), "clip")
    assert found.config["text_config"]["hidden_act"] == "gelu"
    state = pretrained.torch_files.read(found.path)
    module, sizes = pretrained.build(clip, "text", state, found.config)
    assert module.act == sizes["act"] == "gelu"


def test_other_networks_and_other_sizes_are_refused(tmp_path):
    module = DinoFeatures(resolution=8, patch=4, width=64, layers=4, heads=1)
    file = write(tmp_path / "dino.safetensors", dino.TIMM, drawn(module))
    assert set(pretrained.load(str(file), "dino", "features")) == {"params"}
    larger = pretrained.template(module.clone(resolution=12))
    with pytest.raises(ConversionError, match=r"'pos_embed' gives shape \[5, 64\].*\[10, 64\]"):
        pretrained.load(str(file), "dino", "features", larger)
    with pytest.raises(ConversionError, match=r"dino\.safetensors.*not those of clip's text"):
        pretrained.load(str(file), "clip", "text")


def test_what_the_head_of_a_file_says_is_said_as_loading_says_it(tmp_path, monkeypatch):
    module = DinoFeatures(resolution=8, patch=4, width=64, layers=4, heads=1)
    variables = drawn(module)
    file = write(tmp_path / "dino.safetensors", dino.TIMM, variables)
    folder = tmp_path / "converted"
    folder.mkdir()
    (folder / "convert.json").write_text("{}")
    pretrained.save_variables(folder / "features.safetensors", variables, "int8")
    larger, said = module.clone(resolution=12), []
    for name in map(str, (file, folder)):
        with pytest.raises(WeightsError) as error:
            pretrained.published(name, "dino", "features", larger)()
        said.append(str(error.value))

    def refuse(*_):
        raise AssertionError("no array is read")

    monkeypatch.setattr(pretrained.files, "read_all", refuse)
    monkeypatch.setattr(pretrained, "load_variables", refuse)
    for name, sentence in zip(map(str, (file, folder)), said, strict=True):
        pretrained.published(name, "dino", "features", module).check()
        with pytest.raises(WeightsError) as error:
            pretrained.published(name, "dino", "features", larger).check()
        assert str(error.value) == sentence
    with pytest.raises(WeightsError, match="not those of clip's text"):
        pretrained.published(str(file), "clip", "text", TEXT).check()


def test_unknown_names_and_empty_folders(tmp_path):
    with pytest.raises(WeightsError, match=f"known clip model; known: {REPO}"):
        pretrained.find("openai/clip", "clip")
    with pytest.raises(WeightsError, match="known dino model; known: timm/"):
        pretrained.find(REPO, "dino")
    with pytest.raises(WeightsError, match=r"holds none of \*\.safetensors"):
        pretrained.find(str(tmp_path), "clip")


def test_the_cache_of_the_hub_comes_first(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    cached = lambda repo, name: str(file) if name == file.name else None  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert pretrained.find(REPO, "clip").path == file


def test_offline_says_where_the_file_is_and_where_to_put_it(monkeypatch):
    def refuses(url):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuses)
    with pytest.raises(WeightsError) as caught:
        pretrained.find(REPO, "clip")
    said = str(caught.value)
    for part in (
        "model.safetensors",
        f"https://huggingface.co/{REPO}",
        "no route",
        "HF_HOME",
        "clip_weights=",
        "weights=random",
    ):
        assert part in said


def test_a_download_is_checked_against_the_hubs_hash(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    good = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: str(file))
    for etag, fits in ((good, True), ("0" * 64, False), ("0" * 40, True)):
        meta = types.SimpleNamespace(etag=etag)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda _, meta=meta: meta)
        if fits:
            assert pretrained.find(REPO, "clip").path == file
        else:
            with pytest.raises(WeightsError, match="download is damaged"):
                pretrained.find(REPO, "clip")


class Server:
    """Files at http://127.0.0.1, which may break off; counts what it was asked for."""

    def __init__(self, content, breaks=0):
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                broken = outer.asked <= breaks
                found = self.path == "/w.bin"
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write((content[:1] if broken else content) if found else b"")

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/w.bin"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("digits", [8, 64])
def test_a_plain_address_is_fetched_once_and_checked(tmp_path, digits):
    digest, cache = hashlib.sha256(b"abc").hexdigest()[:digits], tmp_path / "cache"
    with Server(b"abc") as server:
        path = pretrained.fetch(server.url, digest, cache)
        assert path.read_bytes() == b"abc"
        assert pretrained.fetch(server.url, digest, cache) == path
        assert server.asked == 1
        with pytest.raises(WeightsError, match=r"hash|sha256 is"):
            pretrained.fetch(server.url, "0" * digits, cache)
    assert [f.name for f in cache.iterdir()] == [path.name], "nothing that is wrong is kept"
    path.write_bytes(b"abd")
    with pytest.raises(WeightsError, match="sha256 is"):
        pretrained.fetch(server.url, digest, cache)


@pytest.mark.usefixtures("_quick")
def test_what_arrives_in_part_is_asked_for_again(tmp_path):
    digest = hashlib.sha256(b"abc").hexdigest()
    with Server(b"abc", breaks=2) as server:
        assert pretrained.fetch(server.url, digest, tmp_path).read_bytes() == b"abc"
    assert server.asked == 3
    with Server(b"abc", breaks=9) as server, pytest.raises(WeightsError, match="save it as"):
        pretrained.fetch(server.url, "0" + digest[1:], tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("_quick")
def test_a_missing_file_or_server_is_named_with_the_way_out(tmp_path):
    absent = r"404.*Fetch it by other means and save it as"
    with Server(b"abc") as server, pytest.raises(WeightsError, match=absent):
        pretrained.fetch(server.url + "x", "0" * 64, tmp_path)
    with pytest.raises(WeightsError, match=rf"(?s){server.url} could not be .*{tmp_path}"):
        pretrained.fetch(server.url, "0" * 64, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_whereabouts_say_what_is_there_and_load_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXT2I_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    file = write(tmp_path / "model.safetensors", clip.HF_TEXT, drawn(TEXT))
    for name in (file, tmp_path):
        assert pretrained.whereabouts(str(name), "clip") == f"{name}, which is there"
    assert "NOT there yet" in pretrained.whereabouts(REPO, "clip")
    known = "torchvision/vgg16"
    assert "downloading https://download.pytorch.org" in pretrained.whereabouts(known, "vgg16")
    (tmp_path / "397923af-vgg16-397923af.pth").write_bytes(b"")
    assert f"kept as {tmp_path}" in pretrained.whereabouts(known, "vgg16")
    assert "no program can fetch it" in pretrained.whereabouts("nvidia/vgg16", "vgg16")
    with pytest.raises(WeightsError, match=f"known clip model; known: {REPO}"):
        pretrained.whereabouts("openai/clip", "clip")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(file))
    assert pretrained.whereabouts(REPO, "clip") == f"{REPO}, kept as {file}"
    loader = pretrained.published(str(file), "clip", "text", TEXT)
    assert loader.where() == f"{file}, which is there"
    jax.tree.map(np.testing.assert_array_equal, loader(), drawn(TEXT))
