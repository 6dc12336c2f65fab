"""A job that uses the vendor's Python package: of each user the trips and the safety score, with one client
for each, as the package's documentation has it. All processes share its token database."""

import pathlib
import sys

# Nothing is to be left in the source tree.
sys.dont_write_bytecode = True
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tests/clients"))

import vendor  # noqa: E402
from job import job, serve  # noqa: E402

vendor.redirect(job.base_url, job.folder)
from damoov_admin import statistics, trips  # noqa: E402

DAYS = {"start_date": "2026-06-28", "end_date": "2026-06-30"}


class Client:
    def log_in_all(self):
        """The package logs in where its database holds no tokens of this account."""
        statistics.DamoovAuth(email=job.email, password=job.password)

    def open(self):
        self.trips = trips.DamoovAuth(email=job.email, password=job.password)
        self.statistics = statistics.DamoovAuth(email=job.email, password=job.password)

    def calls(self, device):
        yield lambda: self.list_trips(device)
        yield lambda: self.safety_score(device)

    def list_trips(self, device):
        found = self.trips.get_list_trips(device, **DAYS, unit_system="Si")
        assert found.trips

    def safety_score(self, device):
        found = self.statistics.user_accumulated_safetyscore(device, **DAYS)
        assert found.status == 200


serve(Client())
