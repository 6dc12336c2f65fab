"""The tables: as text, as Markdown, and everything there is as JSON."""

import datetime
import json
import pathlib
import platform
import statistics
import subprocess

NUMBERS = {1: "one worker", 2: "two workers"}


def machine():
    cpu = [line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
           if line.startswith("model name")]
    # Its exit code is that of a wrong argument; it says its version all the same.
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": len(cpu),
        "wrk": wrk.splitlines()[0].split(" Copyright")[0] if wrk else "",
    }


class Table:
    """The rounds of one measure, of peers with a number of workers, over TLS or not."""

    def __init__(self, measure, names, rounds):
        bench = measure.bench
        self.measure, self.workers, self.tls = measure.name, bench.workers, bench.tls
        upstream = "TLS 1.3 upstream" if bench.tls else "plain upstream"
        workers = NUMBERS.get(bench.workers, f"{bench.workers} workers")
        self.heading = f"{measure.heading()}; {workers}, {upstream}"
        self.names, self.rounds = names, rounds
        base = measure.base if measure.base in names else names[0]
        self.columns = measure.columns(base)

    def values(self, column, name):
        """Of all rounds; empty where the column makes no sense for this name."""
        values = [column.value(round, name) for round in self.rounds]
        return [] if None in values else values

    def medians(self):
        return {name: {column.label: statistics.median(values)
                       for column in self.columns if (values := self.values(column, name))}
                for name in self.names}

    def rows(self):
        """The header, then each peer's row, as texts."""
        yield ["", *(column.label for column in self.columns)]
        for name in self.names:
            yield [name, *(self.cell(column, name) for column in self.columns)]

    def cell(self, column, name):
        values = self.values(column, name)
        if not values:
            return ""
        text = f"{statistics.median(values):.{column.digits}f}"
        if column.quartiles and len(values) >= 4:
            low, _, high = statistics.quantiles(values, n=4)
            text += f" ({low:.{column.digits}f}–{high:.{column.digits}f})"
        return text

    def text(self):
        rows = list(self.rows())
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [self.heading]
        for first, *cells in rows:
            right = (cell.rjust(width) for cell, width in zip(cells, widths[1:]))
            lines.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
        return "\n".join(lines)

    def markdown(self):
        header, *rows = self.rows()
        lines = [f"{self.heading}:", "", header, ["---"] + ["---:"] * len(self.columns), *rows]
        return "\n".join(line if isinstance(line, str) else "| " + " | ".join(line) + " |" for line in lines)

    def json(self):
        return {"measure": self.measure, "heading": self.heading, "workers": self.workers, "tls": self.tls,
                "medians": self.medians(), "rounds": self.rounds}


def save(path, machine, versions, options, tables):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "versions": versions, "options": vars(options),
                                "tables": [table.json() for table in tables]}, indent=1))


def about(machine, versions, options):
    """What was measured, where and when."""
    lines = [f"Medians of {options.rounds} paired rounds of {options.seconds} s, quartiles in brackets. "
             f"{machine['date']}, Linux {machine['kernel']}, {machine['cores']} cores of {machine['cpu']}, "
             f"{machine['wrk']}."]
    return "\n".join([*lines, *(f"- {name}: {version}" for name, version in versions.items())])
