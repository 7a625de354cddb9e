"""A store of objects on this machine that answers as Google Cloud Storage's JSON interface does.

As much of it as gcsfs, google-cloud-storage and TensorStore ask for: objects are listed, read in
ranges, written whole in one request or in several, copied and deleted, with their generations as
conditions. Source: https://cloud.google.com/storage/docs/json_api/v1
"""

import base64
import contextlib
import hashlib
import itertools
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c
import pytest

OBJECT = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)")
COPY = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/(copyTo|rewriteTo)/b/([^/]+)/o/([^/]+)")
OBJECTS = re.compile(r"/(?:upload/)?storage/v1/b/([^/]+)/o")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
WHEN = "2026-01-01T00:00:00.000Z"


class Store:
    """Its objects, and what was asked of it.

    Attributes:
      objects: {(bucket, name): (content, generation)}.
      buckets: those that there are.
      refused: buckets that may not be written to.
    """

    def __init__(self, *buckets: str):
        self.objects: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.buckets, self.refused = set(buckets), set()
        self.generations = itertools.count(1)
        self.uploads: dict[str, tuple[str, str, dict, bytearray]] = {}
        self.lock = threading.RLock()

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Objects of a bucket, sorted."""
        with self.lock:
            return sorted(n for b, n in self.objects if b == bucket and n.startswith(prefix))

    def about(self, bucket: str, name: str) -> dict:
        """What the interface says of an object."""
        content, generation = self.objects[bucket, name]
        crc = google_crc32c.value(content).to_bytes(4, "big")
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "name": name,
            "bucket": bucket,
            "size": str(len(content)),
            "generation": str(generation),
            "metageneration": "1",
            "etag": f"e{generation}",
            "contentType": "application/octet-stream",
            "timeCreated": WHEN,
            "updated": WHEN,
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "crc32c": base64.b64encode(crc).decode(),
        }


class Answers(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    # Else head and body travel apart, and the second waits for the first to be acknowledged.
    wbufsize, disable_nagle_algorithm = -1, True
    store: Store

    def log_message(self, *_):
        """Nothing."""

    def _say(self, code: int, content: bytes | dict = b"", **headers: str) -> None:
        body = json.dumps(content).encode() if isinstance(content, dict) else content
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, code: int, why: str) -> None:
        self._say(code, {"error": {"code": code, "message": why}})

    def _asked(self) -> tuple[str, dict[str, str], bytes]:
        url = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        return url.path, query, body

    def do_GET(self):
        path, query, _ = self._asked()
        with self.store.lock:
            if found := OBJECT.fullmatch(path):
                self._object(*map(urllib.parse.unquote, found.groups()), query)
            elif found := OBJECTS.fullmatch(path):
                self._listed(found[1], query)
            elif found := BUCKET.fullmatch(path):
                if found[1] not in self.store.buckets:
                    return self._refuse(404, "The specified bucket does not exist.")
                self._say(200, {"kind": "storage#bucket", "name": found[1], "location": "HERE"})
            else:
                self._refuse(400, f"GET {path}")

    def _object(self, bucket: str, name: str, query: dict) -> None:
        if (bucket, name) not in self.store.objects:
            return self._refuse(404, f"No such object: {bucket}/{name}")
        content, generation = self.store.objects[bucket, name]
        if query.get("ifGenerationNotMatch") == str(generation):
            return self._say(304)
        if query.get("ifGenerationMatch") not in (None, str(generation)):
            return self._refuse(412, "conditionNotMet")
        if query.get("alt") != "media":
            return self._say(200, self.store.about(bucket, name))
        about = {"x_goog_generation": str(generation), "Content_Type": "application/octet-stream"}
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not span:
            return self._say(200, content, **about)
        first, last = span.groups()
        if not first:
            start, stop = max(len(content) - int(last), 0), len(content)
        else:
            start, stop = int(first), min(int(last or len(content)) + 1, len(content))
        if start >= len(content) and content:
            return self._refuse(416, "out of range")
        part = f"bytes {start}-{max(stop - 1, 0)}/{len(content)}"
        self._say(206, content[start:stop], Content_Range=part, **about)

    def _listed(self, bucket: str, query: dict) -> None:
        if bucket not in self.store.buckets:
            return self._refuse(404, "The specified bucket does not exist.")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        first, last = query.get("startOffset", ""), query.get("endOffset", "")
        items, prefixes = [], set()
        for name in self.store.names(bucket, prefix):
            if name < first or (last and name >= last):
                continue
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if cut:
                prefixes.add(prefix + head + cut)
            else:
                items.append(self.store.about(bucket, name))
        self._say(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def do_POST(self):
        path, query, body = self._asked()
        if path.startswith("/upload/") and not OBJECTS.fullmatch(path):
            return self._more(path, query, body)
        with self.store.lock:
            if found := COPY.fullmatch(path):
                bucket, name, how, to, target = map(urllib.parse.unquote, found.groups())
                if (bucket, name) not in self.store.objects:
                    return self._refuse(404, f"No such object: {bucket}/{name}")
                made = self._put(to, target, self.store.objects[bucket, name][0], {})
                done = {"done": True, "resource": made, "totalBytesRewritten": made["size"]}
                return self._say(200, done if how == "rewriteTo" else made)
            found = OBJECTS.fullmatch(path)
            if not found:
                return self._refuse(400, f"POST {path}")
            bucket, kind = found[1], query.get("uploadType")
            if kind == "resumable":
                name = query.get("name") or json.loads(body)["name"]
                number = str(next(self.store.generations))
                self.store.uploads[number] = bucket, name, query, bytearray()
                here = f"http://{self.headers['Host']}/upload/{number}"
                return self._say(200, Location=here)
            if kind == "multipart":
                mark = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
                _, about, content, _ = body.split(b"--" + mark)
                about = re.split(rb"\r?\n\r?\n", about, maxsplit=1)[1]
                content = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1]
                content = re.sub(rb"\r?\n\Z", b"", content)
                self._written(bucket, json.loads(about)["name"], content, query)
            else:
                self._written(bucket, query["name"], body, query)

    def do_PUT(self):
        self._more(*self._asked())

    def _more(self, path: str, _, body: bytes) -> None:
        """A part of an upload that takes several requests."""
        with self.store.lock:
            bucket, name, query, content = self.store.uploads[path.rpartition("/")[2]]
            content += body
            if self.headers.get("Content-Range", "").endswith("/*"):
                return self._say(308, Range=f"bytes=0-{len(content) - 1}")
            self._written(bucket, name, bytes(content), query)

    def _written(self, bucket: str, name: str, content: bytes, query: dict) -> None:
        if bucket not in self.store.buckets:
            return self._refuse(404, "The specified bucket does not exist.")
        if bucket in self.store.refused:
            return self._refuse(403, "no permission storage.objects.create")
        wanted = query.get("ifGenerationMatch")
        if wanted not in (None, str(self.store.objects.get((bucket, name), (b"", 0))[1])):
            return self._refuse(412, "conditionNotMet")
        self._say(200, self._put(bucket, name, content, query))

    def _put(self, bucket: str, name: str, content: bytes, query: dict) -> dict:
        self.store.objects[bucket, name] = content, next(self.store.generations)
        return self.store.about(bucket, name)

    def do_DELETE(self):
        path, _, _ = self._asked()
        bucket, name = map(urllib.parse.unquote, OBJECT.fullmatch(path).groups())
        with self.store.lock:
            if (bucket, name) not in self.store.objects:
                return self._refuse(404, f"No such object: {bucket}/{name}")
            del self.store.objects[bucket, name]
        self._say(204)


@contextlib.contextmanager
def serving(*buckets: str) -> Iterator[Store]:
    """A store at which gs:// of this process points, with these buckets."""
    store = Store(*buckets)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Answers,), {"store": store}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # who asked may be gone by now
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    here = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", here)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", here)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        # Else it asks by gRPC what kind of bucket this is.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            yield store
        finally:
            server.shutdown()
            server.server_close()
