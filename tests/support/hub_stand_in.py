"""The HTTP interface of a model hub with one repository, as far as samtune's use of it goes."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse


class Hub(BaseHTTPRequestHandler):
    """Answers creation, commits, and files by revision; keeps all in the server's ``commits``."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _json(self, tree, code=200):
        self._send(json.dumps(tree).encode(), code, {"Content-Type": "application/json"})

    def _send(self, content, code=200, headers=None):
        self.send_response(code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlparse(self.path).path
        self.server.seen.append(f"POST {path}")
        if path == "/api/repos/create":
            tree = json.loads(body)
            name = f"{tree.get('organization') or 'owner'}/{tree['name']}"
            return self._json({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return self._json({"files": modes})
        if "/commit/" in path:
            lines = [json.loads(line) for line in body.decode().splitlines() if line]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            sha = hashlib.sha1(body).hexdigest()
            self.server.commits[sha] = files
            self.server.head = sha
            url = f"http://{self.headers['Host']}/owner/polyps/commit/{sha}"
            return self._json({"commitUrl": url, "commitOid": sha, "success": True})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        return self._json({"error": "no such call"}, 404)

    def do_GET(self):
        path = urlparse(self.path).path
        self.server.seen.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            sha = self.server.head
            return self._json({"id": "owner/polyps", "sha": sha, "siblings": [], "tags": []})
        if len(parts) == 5 and parts[2] == "resolve":
            sha = parts[3] if parts[3] in self.server.commits else self.server.head
            content = self.server.commits.get(sha, {}).get(parts[4])
            if content is not None and parts[:2] == ["owner", "polyps"]:
                etag = hashlib.sha1(content).hexdigest()
                return self._send(content, 200, {"X-Repo-Commit": sha, "ETag": f'"{etag}"'})
        return self._send(b"", 404, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET


@contextmanager
def hub():
    """A server on this machine; gives it with its address, what was asked and its commits."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.commits, server.head, server.seen = {}, "", []
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
