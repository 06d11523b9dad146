"""Asks a served model for far more than it can draw, at a steady rate, and says whether it bore it.

    python3 tests/drills/load.py build/release/atelier models/fashion-mnist/k4 [--seconds 120] [--times 10] [--count 8] [--threads 1]

Holds: the process lives; every request was answered, with pictures or 429; 99 of 100 accepted ones within the bound that the queue promises; resident memory
flat within 5 %; and pictures a second within 10 % of what the network alone does in full batches (`atelier benchmark` with the same threads).
Prints what it saw as JSON; exits with 1 where something did not hold.
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

from live import ROOT, Served, request, status_of, whole_length

SETTLING = 0.1  # of the time, at the beginning, in which memory may still grow


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else None


def longest_for(pictures, drawn):
    """The most seconds that so many pictures took, of what was `drawn` until when."""
    longest = 0.0
    for i, (begun, first) in enumerate(drawn):
        for (before, some), (after, more) in zip(drawn[i:], drawn[i + 1:]):
            if more - first >= pictures:
                longest = max(longest, before + (after - before) * (first + pictures - some) / (more - some) - begun)
                break
    return longest


class Storm:
    """Sends requests when they are due, whatever became of those before; an answer frees its connection for the next."""

    def __init__(self, port, bodies):
        self.port, self.bodies, self.sent = port, bodies, 0
        self.selector = selectors.DefaultSelector()
        self.free, self.open, self.lost = collections.deque(), 0, 0
        self.latencies = collections.defaultdict(list)  # seconds, by status
        self.done = collections.Counter()

    def connected(self):
        one = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open += 1
        return one

    def kept(self):
        """A connection from before that the server has not closed, as it does where nothing was asked for long; None where there is none."""
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
        one = self.kept() or self.connected()
        one.sendall(self.bodies[self.sent % len(self.bodies)])
        self.selector.register(one, selectors.EVENT_READ, [time.monotonic(), bytearray()])
        self.sent += 1

    def receive(self, seconds):
        for key, _ in self.selector.select(max(0, seconds)):
            begun, read = key.data
            piece = key.fileobj.recv(1 << 18)
            read += piece
            length = whole_length(read)
            if piece and (length is None or len(read) < length):
                continue
            self.selector.unregister(key.fileobj)
            if not piece:
                self.lost += 1
                key.fileobj.close()
                continue
            status = status_of(read)
            self.done[status] += 1
            self.latencies[status].append(time.monotonic() - begun)
            self.free.append(key.fileobj)

    def run(self, seconds, rate, each_second):
        begun = looked = time.monotonic()
        first = self.sent
        while (now := time.monotonic()) < begun + seconds:
            if now >= looked + 1:
                looked = now
                each_second()
            due = int((now - begun) * rate) - (self.sent - first)
            for _ in range(min(due, 64)):
                self.send()
            self.receive(0 if due > 64 else 1 / rate)

    def finish(self, patience):
        """Waits for the answers still due; how many never came."""
        end = time.monotonic() + patience
        while self.selector.get_map() and time.monotonic() < end:
            self.receive(0.1)
        return len(self.selector.get_map()) + self.lost


def network_limit(arguments, options):
    """Pictures a second of the network alone, in full batches."""
    said = subprocess.run([arguments.program, "benchmark", arguments.model, "--batch", str(arguments.batch), "--runs", "50", "--threads", str(arguments.threads), *options],
                          cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return arguments.batch / json.loads(said)["median_seconds"]


def storm(arguments, served, capacity):
    classes = range(arguments.classes)
    load = Storm(served.port, [request({"class": c, "n": arguments.count, "seed": s}) for s in range(8) for c in classes])
    memory, drawn, engine = [], [], []

    def look():
        memory.append(served.resident_bytes())
        drawn.append((time.monotonic(), served.metric("atelier_images_total")))
        engine.append((served.metric("atelier_engine_seconds_sum"), served.metric("atelier_engine_seconds_count")))

    look()
    load.run(arguments.seconds, arguments.times * capacity / arguments.count, look)
    look()
    busy = (engine[-1][0] - engine[0][0]) / (drawn[-1][0] - drawn[0][0])
    batches = engine[-1][1] - engine[0][1]
    return load, memory, drawn, load.finish(60), {"busy": round(busy, 3), "pictures_a_batch": round((drawn[-1][1] - drawn[0][1]) / batches, 2)}


def verdict(arguments, served, limit):
    students = int(served.get("/metrics")[1].count(b"\natelier_student_here{"))
    load, memory, drawn, missing, engine = storm(arguments, served, limit)
    took = drawn[-1][0] - drawn[0][0]
    rate = (drawn[-1][1] - drawn[0][1]) / took
    settled = memory[int(SETTLING * len(memory)):] or [served.resident_bytes()]
    bound = longest_for(students * (arguments.queue + arguments.batch), drawn)  # all that may wait or be drawn when a request is accepted
    accepted, refused = load.latencies[200], load.latencies[429]
    seen = {
        "model": arguments.model, "seconds": round(took, 1), "threads": arguments.threads, "cores": os.cpu_count(), "network_pictures_a_second": round(limit, 1),
        "asked_pictures_a_second": round(load.sent * arguments.count / took, 1), "drawn_pictures_a_second": round(rate, 1), "times_capacity": round(load.sent * arguments.count / took / limit, 2),
        "engine": engine, "requests": load.sent, "answers": dict(load.done), "unanswered": missing, "connections": load.open,
        "accepted_seconds": {"median": round(statistics.median(accepted), 3), "p99": round(percentile(accepted, 0.99), 3), "bound": round(bound, 3)} if accepted else None,
        "refused_seconds": {"median": round(statistics.median(refused), 4), "p99": round(percentile(refused, 0.99), 4)} if refused else None,
        "resident_megabytes": {"first": settled[0] >> 20, "least": min(settled) >> 20, "most": max(settled) >> 20},
    }
    holds = {
        "it lives": served.process.poll() is None and served.get("/health/ready")[0] == 200,
        "every request is answered": missing == 0,
        "with pictures or 429": set(load.done) <= {200, 429} and load.done[200] > 0 and load.done[429] > 0,
    }
    if not arguments.short:
        holds["99 of 100 accepted ones within the queue's bound"] = percentile(accepted, 0.99) <= bound
        holds["memory is flat within 5 %"] = max(settled) <= 1.05 * settled[0]
        holds["pictures a second within 10 % of the network's"] = rate >= 0.9 * limit
    return seen, holds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--times", type=float, default=10, help="what is asked, in capacities")
    parser.add_argument("--count", type=int, default=8, help="pictures a request")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="of the network; leave a core to the clients")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--queue", type=int, default=128, help="pictures a student")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--short", action="store_true", help="judge only that all is answered, for a few seconds on a machine that others use")
    arguments = parser.parse_args()
    options = ["--precision", arguments.precision]
    limit = network_limit(arguments, options)
    with Served(arguments.program, arguments.model, *options, "--threads", arguments.threads, "--max-batch", arguments.batch, "--queue", arguments.queue) as served:
        seen, holds = verdict(arguments, served, limit)
        code = served.end()
    holds["and it stops when told to"] = code == 0
    print(json.dumps({**seen, "holds": holds}, indent=1))
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
