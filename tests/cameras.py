"""Cameras of the tests, on loopback, which can be told to fail: MJPEG over HTTP, raw pictures over RTSP."""

import io
import socket
import struct
import threading
import time
from base64 import b64decode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

BOUNDARY = "a-frame"


def picture(number, size=(64, 48)):
    """H x W x 3 of one grey, which is a number below 256, also after JPEG."""
    return np.full((size[1], size[0], 3), number, np.uint8)


def jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


class Camera:
    """Shows a frame every `interval` seconds to whoever watches, and counts them.

    frame: makes the content of a frame from its number. After `cut` connections end, and while it is `away`
    they are refused. `stalled`: it accepts and sends nothing. login: user:password that it asks for.
    """

    def __init__(self, frame=None, interval=0.02, port=0):
        self.frame = frame or (lambda number: jpeg(picture(number % 256)))
        self.interval, self.kind = interval, "image/jpeg"
        self.stalled = False
        self.login = None
        self.opened = 0
        self.sent = []
        self.begun = threading.Event()
        self.begun.set()
        self._generation = 0
        self._number = 0
        self._lock = threading.Lock()
        self._listen(port)

    def _listen(self, port):
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                camera._serve(self)

            def log_message(self, *words):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # whoever watched is gone

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/video"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def _serve(self, request):
        generation = self._generation
        given = request.headers.get("Authorization", "").removeprefix("Basic ")
        if self.login is not None and b64decode(given).decode() != self.login:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.end_headers()
            return
        self.opened += 1
        while self.stalled and generation == self._generation:
            time.sleep(0.01)
        request.send_response(200)
        request.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        request.end_headers()
        while generation == self._generation:
            if self.stalled or not self.begun.is_set():
                time.sleep(0.01)
                continue
            with self._lock:
                number, self._number = self._number, self._number + 1
            body = self.frame(number)
            head = f"--{BOUNDARY}\r\nContent-Type: {self.kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            request.wfile.write(head.encode() + body + b"\r\n")
            self.sent.append(number)
            time.sleep(self.interval)

    def hold(self):
        """Show nothing until `begun` is set; the number of the next frame."""
        self.begun.clear()
        while True:
            shown = self._number
            time.sleep(self.interval + 0.05)
            if shown == self._number == self.sent[-1] + 1:
                return shown

    def cut(self):
        """End all connections; new ones are taken."""
        self._generation += 1

    def leave(self):
        """End all connections and refuse new ones."""
        self.cut()
        self.server.shutdown()
        self.server.server_close()

    def come_back(self):
        self._listen(self.port)

    def close(self):
        self.leave()


class H264Camera(Camera):
    """As `Camera`, as H.264 in an MPEG transport stream."""

    def _serve(self, request):
        import av

        generation = self._generation
        self.opened += 1
        request.send_response(200)
        request.send_header("Content-Type", "video/mp2t")
        request.end_headers()
        fast = {"preset": "ultrafast", "tune": "zerolatency", "crf": "4", "g": "20"}
        with av.open(_Sink(request.wfile), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=20, options=fast)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            while generation == self._generation:
                number, self._number = self._number, self._number + 1
                frame = av.VideoFrame.from_ndarray(picture(number % 256), format="rgb24")
                container.mux(stream.encode(frame))
                self.sent.append(number)
                time.sleep(self.interval)


class _Sink:
    """What PyAV writes to; it wants to hear how much was taken."""

    def __init__(self, file):
        self.file = file

    def write(self, content):
        self.file.write(content)
        return len(content)


class RtspCamera:
    """Raw RGB pictures over RTSP, RTP in the same TCP connection (RFC 2326 10.12, RFC 4175): lossless.

    frame: makes H x W x 3 of uint8 from a number; all of one size.
    """

    def __init__(self, frame, interval=0.05):
        self.frame, self.interval = frame, interval
        self._generation = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listening.getsockname()[1]}/live"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        generation = self._generation
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            while head := self._request(lines):
                method, number = head
                extra, body = "Session: 1\r\n", b""
                if method == "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    body = self._sdp()
                    extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    extra += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                answer = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{extra}\r\n".encode()
                connection.sendall(answer + body)
                if method == "PLAY":
                    self._play(connection, generation)
                    return

    def _request(self, lines):
        first = lines.readline().decode().split()
        number = "0"
        while line := lines.readline().decode().strip():
            if line.lower().startswith("cseq:"):
                number = line.split(":")[1].strip()
        return (first[0], number) if first else None

    def _sdp(self):
        height, width = self.frame(0).shape[:2]
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            "a=rtpmap:96 raw/90000\r\na=control:trackID=0\r\n"
            f"a=fmtp:96 sampling=RGB; width={width}; height={height}; depth=8; colorimetry=SMPTE240M\r\n"
        ).encode()

    def _play(self, connection, generation):
        sequence = number = 0
        begun = time.monotonic()
        while generation == self._generation:
            pixels = self.frame(number)
            stamp = int((time.monotonic() - begun) * 90000) & 0xFFFFFFFF
            for row, line in enumerate(pixels):
                is_last = row == len(pixels) - 1
                head = struct.pack(">BBHII", 0x80, 96 | (0x80 if is_last else 0), sequence & 0xFFFF, stamp, 7)
                head += struct.pack(">HHHH", sequence >> 16, line.nbytes, row, 0)
                packet = head + line.tobytes()
                connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                sequence += 1
            number += 1
            time.sleep(self.interval)

    def cut(self):
        self._generation += 1

    def close(self):
        self.cut()
        self._listening.close()
