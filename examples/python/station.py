"""A station in plain Python: sends each new picture of a folder to the service and moves it by its decision.

    INVAD_KEY=inv_... python station.py incoming --server http://127.0.0.1:8000

Nothing but the standard library. A picture is sent under its own request_id until there is an answer, so a
service that is full, restarted or out of reach costs time and no part, and no part is stored twice.
"""

import argparse
import hashlib
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

SUFFIXES = (".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff")


def inspect(server: str, station: str, name: str, content: bytes) -> dict:
    """The service's record of a picture; {"error": ...} where it is none."""
    query = {"part_id": name, "request_id": hashlib.sha256(name.encode() + content).hexdigest()}
    url = f"{server}/api/v1/stations/{station}/inspect?{urllib.parse.urlencode(query)}"
    headers = {"X-API-Key": os.environ.get("INVAD_KEY", ""), "Content-Type": "application/octet-stream"}
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                said = json.load(refused)
            if refused.code == 400:  # no picture
                return said
            if refused.code != 503:
                raise SystemExit(f"{url}: {said['error']}") from None
            pause = int(refused.headers.get("Retry-After", 1))
        except OSError as away:
            print(f"{server}: {away}; trying again")
            pause = 2
        time.sleep(pause)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--station", default="default")
    parser.add_argument("--once", action="store_true", help="end when the folder is empty")
    options = parser.parse_args()
    while True:
        for path in sorted(p for p in options.folder.iterdir() if p.suffix.lower() in SUFFIXES):
            record = inspect(options.server, options.station, path.name, path.read_bytes())
            decision = record.get("decision", "unreadable")
            print(path.name, decision, record.get("error") or f"p {record['p_value']:.3g}", flush=True)
            (options.folder / decision).mkdir(exist_ok=True)
            path.rename(options.folder / decision / path.name)
        if options.once:
            return
        time.sleep(0.5)


if __name__ == "__main__":
    main()
