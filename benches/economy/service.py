"""A job that asks for each user's safety score with that user's JWT, kept in memory. On a 401 it logs the
user in again and asks once more."""

import json
import pathlib
import sys
import time

# Nothing is to be left in the source tree.
sys.dont_write_bytecode = True

import requests  # noqa: E402
from job import device, job, serve  # noqa: E402

SCORES = "/indicators/v3/Scores/safety?StartDate=2026-06-28&EndDate=2026-06-30"
TIMEOUT = 30
# Five a minute are allowed: the first logins keep well away from that. Of the API's seconds.
BETWEEN_LOGINS = 20


class Client:
    def __init__(self):
        self.session = requests.Session()
        self.tokens = {}
        self.kept = pathlib.Path(job.folder, "tokens.json")

    def log_in_all(self):
        for user in range(job.users):
            self.log_in(device(user))
            time.sleep(BETWEEN_LOGINS / 3600 * job.hour)
        self.kept.write_text(json.dumps(self.tokens))

    def open(self):
        """Every process begins with every user's first JWT."""
        self.tokens = json.loads(self.kept.read_text())

    def calls(self, device):
        yield lambda: self.safety_score(device)

    def safety_score(self, device):
        answer = self.get(device)
        if answer.status_code == 401:
            self.log_in(device)
            answer = self.get(device)
        answer.raise_for_status()
        return answer.json()["Result"]

    def get(self, device):
        authorization = {"Authorization": f"Bearer {self.tokens[device]}"}
        return self.session.get(job.base_url + SCORES, headers=authorization, timeout=TIMEOUT)

    def log_in(self, device):
        login = {"LoginFields": json.dumps({"Devicetoken": device}), "Password": job.key}
        answer = self.session.post(f"{job.base_url}/v1/Auth/Login", json=login,
                                   headers={"InstanceId": job.instance}, timeout=TIMEOUT)
        answer.raise_for_status()
        self.tokens[device] = answer.json()["Result"]["AccessToken"]["Token"]


serve(Client())
