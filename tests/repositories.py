"""A server with the few calls of the Hugging Face hub that sending and fetching a repository takes.

The client is the real one; this stores what it sends, as commits, and gives it back by branch or commit.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OWNER = "plant"
WRITES = "hf_test"
"""The token that may."""


@dataclass
class Repositories:
    """Files by path, by commit, by repository; and what was asked, one line each."""

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def commit(self, name, branch, files):
        tree = {**self.commits[name].get(self.branches.get((name, branch), ""), {}), **files}
        said = repr(sorted((path, hashlib.sha1(content).hexdigest()) for path, content in tree.items()))
        sha = hashlib.sha1(f"{len(self.commits[name])} {said}".encode()).hexdigest()
        self.commits[name][sha] = tree
        self.branches[name, branch] = sha
        return sha

    def find(self, name, revision):
        sha = self.branches.get((name, revision), revision)
        return sha if sha in self.commits[name] else None


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Repositories

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        self.store.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self.path.split("?")[0].split("/")[1:]:
            case _ if self.headers.get("Authorization") != f"Bearer {WRITES}":
                return self._json({"error": "You may not write here"}, 403)
            case ["api", "repos", "create"]:
                given = json.loads(body)
                name = "/".join(filter(None, [given.get("organization") or OWNER, given["name"]]))
                if name in self.store.commits:
                    return self._json({"error": "exists", "url": f"{self._own}/{name}"}, 409)
                self.store.commits[name] = {}
                self.store.private[name] = given.get("visibility") == "private" or given.get("private", False)
                return self._json({"url": f"{self._own}/{name}"})
            case ["api", "validate-yaml"]:
                return self._json({"errors": [], "warnings": []})
            case ["api", "models", owner, repo, "preupload", _]:
                files = [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for one in json.loads(body)["files"]
                ]
                return self._json({"files": files})
            case ["api", "models", owner, repo, "commit", branch]:
                lines = [json.loads(line) for line in body.splitlines()]
                files = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                name = f"{owner}/{repo}"
                sha = self.store.commit(name, branch, files)
                return self._json({"commitUrl": f"{self._own}/{name}/commit/{sha}", "commitOid": sha})
        return self._json({"error": "not found"}, 404)

    def do_HEAD(self):
        self._file(send=False)

    def do_GET(self):
        self._file(send=True)

    def _file(self, send):
        self.store.asked.append(f"{self.command} {self.path}")
        owner, repo, *rest = self.path.split("?")[0].split("/")[1:]
        name = f"{owner}/{repo}"
        if rest[:1] != ["resolve"]:
            return self._json({"error": "not found"}, 404)
        if name not in self.store.commits:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        sha = self.store.find(name, rest[1])
        if sha is None:
            return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        content = self.store.commits[name][sha].get("/".join(rest[2:]))
        known = {"X-Repo-Commit": sha}
        if content is None:
            return self._json({"error": "not found"}, 404, {**known, "X-Error-Code": "EntryNotFound"})
        etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self._send(content, 200, {**known, **etag}, send)

    @property
    def _own(self):
        return f"http://{self.headers['Host']}"

    def _json(self, plain, status=200, headers=None):
        kind = {"Content-Type": "application/json", **(headers or {})}
        self._send(json.dumps(plain).encode(), status, kind, self.command != "HEAD")

    def _send(self, content, status, headers, send):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if send:
            self.wfile.write(content)


def server(store):
    """Bound to a free port of this machine; `serve_forever` begins."""
    return ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Hub,), {"store": store}))
