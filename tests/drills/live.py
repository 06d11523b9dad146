"""A server process under test: its memory, its log, and connections to it. Needs only the standard
library."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def request(body, key="", path="/v1/images/generations"):
    """The bytes of a POST; `key` is its X-Request-Id, which the server logs."""
    text = json.dumps(body).encode()
    named = f"X-Request-Id: {key}\r\n" if key else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"{named}Content-Length: {len(text)}\r\n\r\n"
    ).encode() + text


def whole_length(read):
    """Length in bytes of the response that begins with `read`; None while its head is cut."""
    end = read.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = re.search(rb"\r\ncontent-length: (\d+)", bytes(read[:end]).lower())
    return end + 4 + (int(length[1]) if length else 0)


def status_of(read):
    return int(read[9:12])


class Connection:
    """A blocking keep-alive connection. `buffer`: size of the receive buffer in bytes."""

    def __init__(self, port, timeout=60, buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""

    def receive(self):
        """Status and body of the next response; (0, b"") if the connection ended before its end."""
        while (length := whole_length(self.read)) is None or len(self.read) < length:
            try:
                chunk = self.socket.recv(1 << 16)
            except ConnectionError:
                chunk = b""
            if not chunk:
                return 0, b""
            self.read += chunk
        answer, self.read = self.read[:length], self.read[length:]
        return status_of(answer), answer[answer.find(b"\r\n\r\n") + 4 :]

    def ask(self, bytes_):
        try:
            self.socket.sendall(bytes_)
        except ConnectionError:
            return 0, b""
        return self.receive()

    def images(self, body, key=""):
        return self.ask(request(body, key))

    def get(self, path):
        return self.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def close(self):
        self.socket.close()


class RunningServer:
    """A running `atelier serve`. `log` is the file with its standard error."""

    def __init__(self, program, model, *options, port=0, wait=True, env=None):
        self.port = port or free_port()
        self.log = pathlib.Path(tempfile.mkstemp(prefix="atelier-drill-", suffix=".log")[1])
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(program),
                    "serve",
                    *([model] if isinstance(model, (str, pathlib.Path)) else model),
                    "--port",
                    str(self.port),
                    *map(str, options),
                ],
                cwd=ROOT,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        if wait:
            try:
                self.until_ready()
            except BaseException:
                self.end(signal.SIGKILL)
                raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGKILL)
        self.log.unlink(missing_ok=True)

    def until(self, holds, timeout=120):
        """Waits until `holds()`; returns the seconds since the start of the server."""
        while time.monotonic() < self.began + timeout:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"the server ended with {self.process.returncode}: "
                    f"{self.log.read_text()[-2000:]}"
                )
            try:
                if holds():
                    return time.monotonic() - self.began
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError(f"not within {timeout} s: {self.log.read_text()[-2000:]}")

    def get(self, path):
        connection = Connection(self.port)
        try:
            return connection.get(path)
        finally:
            connection.close()

    def until_ready(self):
        return self.until(lambda: self.get("/health/ready")[0] == 200)

    def metric(self, name):
        """The value of a metric, summed over its labels."""
        text = self.get("/metrics")[1].decode()
        return sum(
            float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)
        )

    def resident_bytes(self):
        return int(
            pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        ) * os.sysconf("SC_PAGESIZE")

    def own_bytes(self):
        """Resident memory without file-backed pages."""
        return 1024 * int(
            re.search(
                r"RssAnon:\s*(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            )[1]
        )

    def answered(self):
        """The ids of the image requests that the log records as answered with 200."""
        return set(re.findall(r"^(?:.* )?(\S+) \S+ POST \S+ 200 ", self.log.read_text(), re.M))

    def end(self, how=signal.SIGTERM, timeout=60):
        """Ends the server and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout)
