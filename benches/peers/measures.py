"""What is measured, and how. Each measure takes rounds; within one, every peer has its turn, and ratios
are between values of the same round."""

import concurrent.futures
import dataclasses
import json
import pathlib
import subprocess
import sys
import threading
import time
import typing

import load
import processes
from bench import LARGE, OTHER_CORE, PROXY_CORE, SCORES

DIRECTLY = "the API directly"


class Failed(Exception):
    """A peer did not answer as it should."""


@dataclasses.dataclass
class Column:
    """`value` of a round, for a name; None if it does not make sense for that name."""

    label: str
    value: typing.Callable[[dict, str], float | None]
    digits: int
    # Whether the quartiles of the rounds are shown, too.
    quartiles: bool = False


def field(name):
    return lambda round, peer: round[peer].get(name)


def ratio(name, base):
    def value(round, peer):
        return round[peer][name] / round[base][name] if base in round else None
    return value


class Measure:
    """Rounds of one peer after the other, of which the first one only warms everything up."""

    name: str
    base = "nginx"
    # Whether the API without a proxy is measured beside the peers.
    directly = False

    def __init__(self, bench):
        self.bench = bench

    def rounds(self, peers):
        """The values of each round by the peer's name, and the names of those measured."""
        running = [self.bench.running_peer(peer) for peer in peers]
        running = [each for each in running if each is not None and self.check(each)]
        if self.directly:
            running.append(dataclasses.replace(self.bench.api, name=DIRECTLY))
        rounds = []
        for number in range(self.bench.options.rounds + 1):
            round, turn = {}, number % max(len(running), 1)
            for each in running[turn:] + running[:turn]:
                try:
                    round[each.name] = self.take(each)
                # An OSError: its process has ended.
                except (Failed, OSError) as failed:
                    print(f"{self.name}: {each.name} is left out: {failed}", file=sys.stderr)
                    running.remove(each)
                self.bench.empty_logs(each)
            if number > 0:
                rounds.append(round)
        return [each.name for each in running], rounds

    def check(self, running):
        return True

    def wrk(self, running, core, connections):
        command = ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", "--latency",
                   f"-d{self.bench.options.seconds}s", "-s", self.bench.wrk_script,
                   f"http://127.0.0.1:{running.port}"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise Failed(done.stderr)
        result = json.loads(done.stdout.rsplit("RESULT", 1)[1])
        if result["failed"] or not result["requests"]:
            raise Failed(done.stdout)
        return result


class Rate(Measure):
    """Requests a second, and what one costs, for many callers of small answers."""

    name = "rate"

    def heading(self):
        return f"Small answers, {self.bench.options.connections} connections"

    def columns(self, base):
        return [
            Column("req/s", field("rate"), 0),
            Column(f"× {base}", ratio("rate", base), 2, quartiles=True),
            Column("CPU µs", field("cpu"), 1),
            Column(f"CPU × {base}", ratio("cpu", base), 2, quartiles=True),
            Column("p50 µs", field("p50"), 0),
        ]

    def take(self, running):
        before = processes.cpu_seconds(running.process.pid)
        result = self.wrk(running, OTHER_CORE, self.bench.options.connections)
        spent = processes.cpu_seconds(running.process.pid) - before
        return {"rate": result["requests"] / result["seconds"],
                "cpu": spent / result["requests"] * 1e6, "p50": result["p50"]}


class Latency(Measure):
    """What a proxy adds for one caller, when it shares its core with the caller and the API."""

    name = "latency"
    directly = True

    def heading(self):
        return "Small answers, one connection, caller, proxy and API on one core"

    def columns(self, base):
        def added(round, peer):
            if peer == DIRECTLY or DIRECTLY not in round:
                return None
            return round[peer]["mean"] - round[DIRECTLY]["mean"]

        def added_ratio(round, peer):
            if base not in round or added(round, peer) is None:
                return None
            return added(round, peer) / added(round, base)

        return [
            Column("mean µs", field("mean"), 1),
            Column("added µs", added, 1),
            Column(f"added × {base}", added_ratio, 2, quartiles=True),
            Column("p50 µs", field("p50"), 0),
            Column("p99 µs", field("p99"), 0),
        ]

    def rounds(self, peers):
        processes.pin(self.bench.api.process.pid, {PROXY_CORE})
        try:
            return super().rounds(peers)
        finally:
            processes.pin(self.bench.api.process.pid, {OTHER_CORE})

    def take(self, running):
        processes.pin(running.process.pid, {PROXY_CORE})
        result = self.wrk(running, PROXY_CORE, 1)
        if running.name != DIRECTLY and self.bench.workers > 1:
            processes.pin(running.process.pid, {PROXY_CORE, OTHER_CORE})
        # wrk's own percentiles are whole microseconds.
        return {"mean": result["seconds"] / result["requests"] * 1e6,
                "p50": result["p50"], "p99": result["p99"]}


class Large(Measure):
    """Megabytes a second of 10 MiB answers, to callers who throw them away unseen."""

    name = "large"
    base = "nginx tuned"
    directly = True
    connections = 4

    def heading(self):
        return f"Answers of 10 MiB, {self.connections} connections"

    def columns(self, base):
        return [
            Column("MB/s", field("rate"), 0),
            Column(f"× {base}", ratio("rate", base), 2, quartiles=True),
            Column("CPU µs/MB", field("cpu"), 0),
        ]

    def check(self, running):
        if self.bench.passes_large(running):
            return True
        print(f"large: {running.name} is left out: it does not pass the content as it is", file=sys.stderr)
        return False

    def take(self, running):
        before = processes.cpu_seconds(running.process.pid)
        command = ["taskset", "-c", OTHER_CORE, sys.executable, pathlib.Path(load.__file__), running.port,
                   LARGE, self.bench.users[0].device, self.connections, self.bench.options.seconds]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise Failed(done.stderr)
        result = json.loads(done.stdout)
        spent = processes.cpu_seconds(running.process.pid) - before
        rate = {"rate": result["bytes"] / result["seconds"] / 1e6}
        return rate if running.name == DIRECTLY else {**rate, "cpu": spent / result["bytes"] * 1e12}


class Memory(Measure):
    """Resident memory, summed over a peer's processes: after its start, with callers who stay, and its
    peak while callers read large answers slowly. Every round starts the peers anew."""

    name = "memory"
    callers, requests = 64, 20
    streams, pace = 4, 2_000_000

    def heading(self):
        return (f"Resident memory, MiB, summed over processes: idle, with {self.callers} connections that made "
                f"{self.requests} requests each, and at most while {self.streams} answers of 10 MiB are read at "
                f"{self.pace / 1e6:.0f} MB/s each")

    def columns(self, _):
        return [
            Column("idle", field("idle"), 1),
            Column(f"{self.callers} connections", field("connections"), 1),
            Column(f"{self.streams} × 10 MiB", field("streams"), 1, quartiles=True),
        ]

    def rounds(self, peers):
        rounds, names = [], [peer.name for peer in peers]
        for _ in range(self.bench.options.rounds):
            running = [each for each in map(self.bench.start, peers) if each is not None]
            try:
                # All at once: it takes seconds that nobody is busy in, and memory does not notice.
                with concurrent.futures.ThreadPoolExecutor(max(len(running), 1)) as threads:
                    results = [(each, threads.submit(self.take, each)) for each in running]
                round = {}
                for each, result in results:
                    try:
                        round[each.name] = result.result()
                    except (Failed, OSError) as failed:
                        print(f"memory: {each.name} is left out: {failed}", file=sys.stderr)
            finally:
                for each in running:
                    self.bench.stop(each)
            rounds.append(round)
            names = [name for name in names if name in round]
            peers = [peer for peer in peers if peer.name in names]
        return names, rounds

    def take(self, running):
        pid = running.process.pid
        devices = [user.device for user in self.bench.users]
        # What a process does right after its start is not yet idle.
        time.sleep(2)
        idle = processes.resident(pid)
        with load.callers_who_stay(running.port, SCORES, devices, self.callers, self.requests):
            connections = processes.resident(pid)
        with Peak(pid) as peak:
            load.slowly(running.port, LARGE, devices[0], self.streams, self.pace)
        return {"idle": idle, "connections": connections, "streams": peak.mib}


class Peak:
    """The most resident memory while it is entered: the sum of what the kernel notes for each process,
    or where it cannot be told to begin anew, the largest of many samples."""

    def __init__(self, pid):
        self.pid, self.mib = pid, 0

    def __enter__(self):
        self.left = threading.Event()
        self.sampler = None
        try:
            processes.forget_peak(self.pid)
        except OSError:
            self.sampler = threading.Thread(target=self.sample)
            self.sampler.start()
        return self

    def sample(self):
        while not self.left.wait(0.02):
            self.mib = max(self.mib, processes.resident(self.pid))

    def __exit__(self, *_):
        self.left.set()
        if self.sampler:
            self.sampler.join()
        else:
            self.mib = processes.resident(self.pid, "VmHWM")


MEASURES = {measure.name: measure for measure in (Rate, Latency, Large, Memory)}
