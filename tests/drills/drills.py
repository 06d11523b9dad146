"""Failure drills for a running server.

    python3 tests/drills/drills.py build/release/atelier models/fashion-mnist/k4
        [stop|kill|reload|slow ...] [--rounds N]

stop    SIGTERM under heavy load: clients received every response that the server logged, complete,
        and the exit code is 0
kill    kill -9 under load and a restart at the same port: seconds until the first image
reload  the ensemble's folder is replaced repeatedly by renaming, with memory for one student, under
        load: every request gets its image
slow    clients that send half a header or half a body, and clients that do not read: the first two
        get 408, all are disconnected, and others are not delayed
Prints its observations as JSON; exits with 1 if a check failed.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

from live import ROOT, Connection, RunningServer, request


class Clients:
    """Threads that send one request after another, each with its own id, until `end` or until the
    server is gone."""

    def __init__(self, served, count, body, again=False):
        self.served, self.body, self.again = served, body, again
        self.over, self.lock = threading.Event(), threading.Lock()
        self.received, self.answers, self.slowest = set(), {}, 0.0
        self.threads = [
            threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        connection, count = None, 0
        while not self.over.is_set():
            count += 1
            key, begun, status = f"c{number}-{count}", time.monotonic(), 0
            try:
                connection = connection or Connection(self.served.port)
                status, body = connection.images(self.body(number, count), key)
            except OSError:
                pass
            self.note(status, key, time.monotonic() - begun)
            if status in (0, 503):
                if not self.again:
                    return
                connection = None
                time.sleep(0.01)

    def note(self, status, key, seconds):
        with self.lock:
            self.answers[status] = self.answers.get(status, 0) + 1
            self.slowest = max(self.slowest, seconds)
            if status == 200:
                self.received.add(key)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        return self


def any_class(number, count):
    return {"class": (number + count) % 10, "seed": count}


def stop(arguments):
    seen, holds = [], True
    for _ in range(arguments.rounds):
        with RunningServer(
            arguments.program, arguments.model, *arguments.options, "--queue", 64
        ) as served:
            clients = Clients(
                served, 48, lambda number, count: {**any_class(number, count), "n": 4}
            )
            idle = [Connection(served.port) for _ in range(8)]
            begun = [Connection(served.port) for _ in range(8)]
            for one in begun:
                one.socket.sendall(request(any_class(0, 1))[:120])
            time.sleep(arguments.seconds)
            stopped = time.monotonic()
            code = served.end()
            took = time.monotonic() - stopped
            clients.end()
            lost = served.answered() - clients.received
            seen.append(
                {
                    "exit_code": code,
                    "stopped_within_seconds": round(took, 3),
                    "received": len(clients.received),
                    "lost": len(lost),
                    "answers": clients.answers,
                    "idle_or_half_sent": len(idle) + len(begun),
                }
            )
            holds = (
                holds
                and code == 0
                and not lost
                and clients.received == served.answered()
                and set(clients.answers) <= {0, 200, 429, 503}
            )
    return seen, {"nothing accepted is lost": holds}


def kill(arguments):
    """The first start fills the cache of compiled networks."""
    seconds, ready = [], []
    first = RunningServer(arguments.program, arguments.model, *arguments.options)
    served = first
    try:
        for _ in range(arguments.rounds):
            clients = Clients(served, 8, any_class)
            time.sleep(min(1, arguments.seconds))
            served.end(signal.SIGKILL)
            clients.end()
            served.log.unlink()
            served = RunningServer(
                arguments.program, arguments.model, *arguments.options, port=first.port, wait=False
            )
            seconds.append(
                served.until(lambda: Connection(served.port).images(any_class(0, 7))[0] == 200)
            )
            ready.append(served.until_ready())
    finally:
        served.end(signal.SIGKILL)
        served.log.unlink(missing_ok=True)
    seen = {
        "first_picture_seconds": {
            "median": round(statistics.median(seconds), 3),
            "most": round(max(seconds), 3),
        },
        "all_students_seconds": {
            "median": round(statistics.median(ready), 3),
            "most": round(max(ready), 3),
        },
        "rounds": arguments.rounds,
    }
    return seen, {f"images again within {arguments.restart} s": max(seconds) <= arguments.restart}


def swap(folder, other):
    """Replaces a directory as the operations guide says: by renaming a complete one into place."""
    folder.rename(folder.with_name("gone"))
    other.rename(folder)
    folder.with_name("gone").rename(other)


def reload(arguments):
    with tempfile.TemporaryDirectory(prefix="atelier-drill-") as folder_name:
        one, other = pathlib.Path(folder_name, "ensemble"), pathlib.Path(folder_name, "other")
        shutil.copytree(ROOT / arguments.model, one)
        shutil.copytree(ROOT / arguments.other, other)
        with RunningServer(
            arguments.program, one, *arguments.options, "--memory-budget", 1
        ) as served:
            clients = Clients(served, 8, any_class)
            for done in range(1, arguments.rounds + 1):
                time.sleep(0.2)
                swap(one, other)
                served.process.send_signal(signal.SIGHUP)
                served.until(lambda: served.metric("atelier_reloads_total") >= done)
            clients.end()
            seen = {
                "reloads": served.metric("atelier_reloads_total"),
                "failed": served.metric(r"atelier_rejected_total"),
                "loads": served.metric("atelier_student_loads_total"),
                "answers": clients.answers,
                "slowest_seconds": round(clients.slowest, 3),
                "resident_megabytes": served.resident_bytes() >> 20,
            }
            code = served.end()
    return seen, {
        "no request is lost or failed": set(clients.answers) == {200},
        "it stops on SIGTERM": code == 0,
    }


def slow(arguments):
    timeout, each = 2, 100
    with RunningServer(
        arguments.program, arguments.model, *arguments.options, "--client-timeout", timeout
    ) as served:
        quiet = [time_of(served) for _ in range(50)]
        heads, bodies = ([Connection(served.port) for _ in range(each)] for _ in range(2))
        readers = [Connection(served.port, buffer=4096) for _ in range(each)]
        for one in heads:
            one.socket.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        for one in bodies:
            one.socket.sendall(request(any_class(0, 1))[:-5])
        for one in readers:  # more responses than fit into both sides' buffers
            one.socket.sendall(b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        begun = time.monotonic()
        beside = []
        while time.monotonic() < begun + timeout:
            beside.append(time_of(served))
        statuses = [one.receive()[0] for one in heads + bodies]
        served.until(lambda: served.metric("atelier_connections") == 1)
        seen = {
            "slow_clients": 3 * each,
            "told_408": statuses.count(408),
            "request_seconds_alone": round(statistics.median(quiet), 4),
            "request_seconds_beside": {
                "median": round(statistics.median(beside), 4),
                "most": round(max(beside), 4),
                "requests": len(beside),
            },
            "all_left_after_seconds": round(time.monotonic() - begun, 2),
        }
        code = served.end()
    return seen, {
        "unfinished requests get 408": statuses.count(408) == 2 * each,
        "other clients are not delayed": max(beside) < timeout / 2,
        "it stops on SIGTERM": code == 0,
    }


def time_of(served):
    connection, begun = Connection(served.port), time.monotonic()
    status = connection.images(any_class(0, 7))[0]
    connection.close()
    return time.monotonic() - begun if status == 200 else float("inf")


def main():
    drills = {"stop": stop, "kill": kill, "reload": reload, "slow": slow}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("drill", nargs="*", choices=[*drills, []], default=[])
    parser.add_argument(
        "--other", help="the ensemble to swap with in the drill reload; default: a copy of MODEL"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=2, help="seconds of traffic before the failure"
    )
    parser.add_argument("--restart", type=float, default=2, help="maximum seconds of a restart")
    arguments, arguments.options = parser.parse_args(), ["--precision", "bf16"]
    arguments.program = os.path.abspath(arguments.program)
    arguments.other = arguments.other or arguments.model
    passed = True
    for name in arguments.drill or drills:
        seen, holds = drills[name](arguments)
        print(json.dumps({"drill": name, "seen": seen, "holds": holds}))
        passed = passed and all(holds.values())
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
