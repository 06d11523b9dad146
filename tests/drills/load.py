"""Overload test: sends a running server far more than it can draw, at a steady rate.

    python3 tests/drills/load.py build/release/atelier models/fashion-mnist/k4
        [--seconds 120] [--times 10] [--count 8] [--threads 1]

Checks: the process survives; every request is answered, with images or 429; 99 % of the accepted
ones within the bound set by the queue length; resident memory constant within 5 %; and throughput
within 10 % of the network alone in full batches (`atelier benchmark` with the same threads).
Prints its observations as JSON; exits with 1 if a check failed.
"""

import argparse
import collections
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time

from live import ROOT, RunningServer, request, status_of, whole_length

SETTLING = 0.1  # the initial fraction of the run in which memory may still grow


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else None


def longest_for(count, drawn):
    """The longest time in seconds in which `count` images were drawn; `drawn`: (time, total)."""
    longest = 0.0
    for i, (begun, first) in enumerate(drawn):
        for (before, some), (after, more) in zip(drawn[i:], drawn[i + 1 :]):
            if more - first >= count:
                longest = max(
                    longest,
                    before + (after - before) * (first + count - some) / (more - some) - begun,
                )
                break
    return longest


class LoadGenerator:
    """Open-loop load: sends requests on schedule regardless of earlier ones; a response frees its
    connection for the next request."""

    def __init__(self, port, bodies):
        self.port, self.bodies, self.sent = port, bodies, 0
        self.selector = selectors.DefaultSelector()
        self.free, self.open, self.lost, self.again = collections.deque(), 0, 0, 0
        self.latencies = collections.defaultdict(list)  # seconds, by status
        self.done = collections.Counter()

    def connected(self):
        one = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open += 1
        return one

    def idle_connection(self):
        """An idle connection that the server has not closed after its timeout, or None."""
        while self.free:
            one = self.free.pop()
            one.setblocking(False)
            try:
                one.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                one.settimeout(60)
                return one
            except OSError:
                pass
            one.close()
        return None

    def send(self):
        body = self.bodies[self.sent % len(self.bodies)]
        self.send_on(self.idle_connection() or self.connected(), body, time.monotonic())
        self.sent += 1

    def send_on(self, one, body, begun):
        try:
            one.sendall(body)
        except ConnectionError:
            one.close()
            self.again += 1
            one = self.connected()
            one.sendall(body)
        self.selector.register(one, selectors.EVENT_READ, [begun, bytearray(), body])

    def receive(self, seconds):
        for key, _ in self.selector.select(max(0, seconds)):
            begun, read, body = key.data
            try:
                chunk = key.fileobj.recv(1 << 18)
            except ConnectionError:
                chunk = b""
            read += chunk
            length = whole_length(read)
            if chunk and (length is None or len(read) < length):
                continue
            self.selector.unregister(key.fileobj)
            if not chunk:
                key.fileobj.close()
                # The server closes an idle connection for a new one, also while a request is on
                # its way to it, and a new one when all that it may have are busy. Such a request
                # was not read, and clients send it again (RFC 9112, 9.3.1).
                if not read:
                    self.again += 1
                    self.send_on(self.connected(), body, begun)
                else:
                    self.lost += 1
                continue
            status = status_of(read)
            self.done[status] += 1
            self.latencies[status].append(time.monotonic() - begun)
            self.free.append(key.fileobj)

    def run(self, seconds, rate, each_second):
        begun = last_observation = time.monotonic()
        first = self.sent
        while (now := time.monotonic()) < begun + seconds:
            if now >= last_observation + 1:
                last_observation = now
                each_second()
            due = int((now - begun) * rate) - (self.sent - first)
            for _ in range(min(due, 64)):
                self.send()
            self.receive(0 if due > 64 else 1 / rate)

    def finish(self, timeout):
        """Waits for outstanding responses; returns how many never came."""
        end = time.monotonic() + timeout
        while self.selector.get_map() and time.monotonic() < end:
            self.receive(0.1)
        return len(self.selector.get_map()) + self.lost


def network_limit(arguments, options):
    """Throughput of the network alone in full batches, in images per second."""
    said = subprocess.run(
        [
            arguments.program,
            "benchmark",
            arguments.model,
            "--batch",
            str(arguments.batch),
            "--runs",
            "50",
            "--threads",
            str(arguments.threads),
            *options,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return arguments.batch / json.loads(said)["median_seconds"]


def run_load(arguments, served, capacity):
    classes = range(arguments.classes)
    load = LoadGenerator(
        served.port,
        [request({"class": c, "n": arguments.count, "seed": s}) for s in range(8) for c in classes],
    )
    memory, drawn, engine = [], [], []

    def look():
        memory.append(served.resident_bytes())
        drawn.append((time.monotonic(), served.metric("atelier_images_total")))
        engine.append(
            (
                served.metric("atelier_engine_seconds_sum"),
                served.metric("atelier_engine_seconds_count"),
            )
        )

    look()
    load.run(arguments.seconds, arguments.times * capacity / arguments.count, look)
    look()
    busy = (engine[-1][0] - engine[0][0]) / (drawn[-1][0] - drawn[0][0])
    batches = engine[-1][1] - engine[0][1]
    return (
        load,
        memory,
        drawn,
        load.finish(60),
        {
            "busy": round(busy, 3),
            "pictures_a_batch": round((drawn[-1][1] - drawn[0][1]) / batches, 2),
        },
    )


def evaluate(arguments, served, limit):
    students = int(served.get("/metrics")[1].count(b"\natelier_student_here{"))
    load, memory, drawn, missing, engine = run_load(arguments, served, limit)
    took = drawn[-1][0] - drawn[0][0]
    rate = (drawn[-1][1] - drawn[0][1]) / took
    settled = memory[int(SETTLING * len(memory)) :] or [served.resident_bytes()]
    bound = longest_for(
        students * (arguments.queue + arguments.batch), drawn
    )  # everything that may be queued or in the engine when a request is accepted
    accepted, refused = load.latencies[200], load.latencies[429]
    seen = {
        "model": arguments.model,
        "seconds": round(took, 1),
        "threads": arguments.threads,
        "cores": os.cpu_count(),
        "network_pictures_a_second": round(limit, 1),
        "asked_pictures_a_second": round(load.sent * arguments.count / took, 1),
        "drawn_pictures_a_second": round(rate, 1),
        "times_capacity": round(load.sent * arguments.count / took / limit, 2),
        "engine": engine,
        "requests": load.sent,
        "answers": dict(load.done),
        "unanswered": missing,
        "sent_again": load.again,
        "connections": load.open,
        "accepted_seconds": {
            "median": round(statistics.median(accepted), 3),
            "p99": round(percentile(accepted, 0.99), 3),
            "bound": round(bound, 3),
        }
        if accepted
        else None,
        "refused_seconds": {
            "median": round(statistics.median(refused), 4),
            "p99": round(percentile(refused, 0.99), 4),
        }
        if refused
        else None,
        "resident_megabytes": {
            "first": settled[0] >> 20,
            "least": min(settled) >> 20,
            "most": max(settled) >> 20,
        },
    }
    holds = {
        "the process survives": served.process.poll() is None
        and served.get("/health/ready")[0] == 200,
        "every request is answered": missing == 0,
        "with images or 429": set(load.done) <= {200, 429}
        and load.done[200] > 0
        and load.done[429] > 0,
    }
    if not arguments.short:
        holds["99 % of accepted requests within the queue's bound"] = (
            percentile(accepted, 0.99) <= bound
        )
        holds["memory is constant within 5 %"] = max(settled) <= 1.05 * settled[0]
        holds["throughput within 10 % of the network's"] = rate >= 0.9 * limit
    return seen, holds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument(
        "--times", type=float, default=10, help="offered load as a multiple of capacity"
    )
    parser.add_argument("--count", type=int, default=8, help="images per request")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument(
        "--threads", type=int, default=1, help="of the network; leave a core for the clients"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--queue", type=int, default=128, help="images per student")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument(
        "--short",
        action="store_true",
        help="check only that every request is answered, for short runs on a busy machine",
    )
    arguments = parser.parse_args()
    options = ["--precision", arguments.precision]
    limit = network_limit(arguments, options)
    with RunningServer(
        arguments.program,
        arguments.model,
        *options,
        "--threads",
        arguments.threads,
        "--max-batch",
        arguments.batch,
        "--queue",
        arguments.queue,
    ) as served:
        seen, holds = evaluate(arguments, served, limit)
        code = served.end()
    holds["it stops on SIGTERM"] = code == 0
    print(json.dumps({**seen, "holds": holds}, indent=1))
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
