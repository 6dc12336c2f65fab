"""A job that a number of processes share: each hour all of them together ask for every user once."""

import json
import random
import sys
import time
from types import SimpleNamespace

# Where the API is, who this process is, and how much there is to do.
job = SimpleNamespace(**json.loads(sys.argv[1]))


def device(user):
    return f"{user:08x}-0000-4000-8000-000000000000"


def serve(client):
    """Does what each line of the input says, and answers with a line: `log in`, for all processes, and
    `begin` at a time, which ends with how many calls there were and how many of them failed."""
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["log_in"]:
                client.log_in_all()
                print("ready", flush=True)
            case ["begin", begins]:
                print(json.dumps(work(client, float(begins))), flush=True)


def work(client, begins):
    client.open()
    calls = failed = 0
    for hour in range(job.hours):
        time.sleep(max(0, begins + hour * job.hour - time.time()))
        for user in range(job.users):
            # As a queue of work hands them out: a user is now with this process, now with another.
            if random.Random(f"{hour} {user}").randrange(job.processes) != job.number:
                continue
            for call in client.calls(device(user)):
                if time.time() > begins + job.hours * job.hour:
                    return {"calls": calls, "failed": failed}
                calls += 1
                try:
                    call()
                except Exception:  # noqa: BLE001  What a client raises, its caller does not get.
                    failed += 1
    return {"calls": calls, "failed": failed}
