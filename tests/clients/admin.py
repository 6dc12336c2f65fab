"""What a service does with damoov-admin, unchanged but for the host of its URLs.

    admin.py BASE_URL FOLDER EMAIL PASSWORD

Reads the name of a step and its arguments from each line of its input, and writes what came of it
as a line of JSON. The library prints what goes wrong: every other line is an error of its own.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

# Nothing is to be left in the source tree.
sys.dont_write_bytecode = True

import vendor

BASE_URL, FOLDER, EMAIL, PASSWORD = sys.argv[1:]

vendor.redirect(BASE_URL, FOLDER)
from damoov_admin import accounts, engagement, statistics, trips, users  # noqa: E402

DEVICE = "00000001-0000-4000-8000-000000000000"
COMPANY = "c0000000-0000-4000-8000-000000000000"
DAYS = {"start_date": "2026-06-28", "end_date": "2026-06-30"}
THREADS = 8

pool = ThreadPoolExecutor(THREADS)
barrier = threading.Barrier(THREADS)
own = threading.local()


def of(module):
    """The client of a module, made and used by this thread alone."""
    clients = vars(own).setdefault("clients", {})
    if module not in clients:
        clients[module] = module.DamoovAuth(email=EMAIL, password=PASSWORD)
    return clients[module]


def good(response):
    assert response.status == 200, str(response)
    return response.result


def create(instance, key):
    """A new user, and the tokens that came with it."""
    created = of(users).create_user(
        instanceid=instance, instancekey=key, FirstName="Ada", CreateAccessToken=True
    )
    good(created)
    return {
        "device": created.userid,
        "access": created.accesstoken,
        "refresh": created.refreshtoken,
    }


def change(device):
    """Everything that an update can say is found again."""
    client = of(users)
    good(client.update_user(device, FirstName="Tim", Email="tim@example.com", ClientId="12-34"))
    good(client.update_user_config(device, tracking_enabled=False))
    (found,) = good(client.get_user_details(device))
    assert found["UserProfile"]["FirstName"] == "Tim", found
    assert found["UserProfile"]["Email"] == "tim@example.com", found
    assert found["UserFields"][0] == {"ClientId": "12-34", "EnableTracking": False}, found
    return found["DeviceToken"]


def move(device, instance, key):
    good(of(users).change_user_instance(device, instance, key))
    (found,) = good(of(users).get_user_details(device))
    return found["AccountInfo"]["InstanceId"]


def delete(device):
    good(of(users).delete_user(device))
    return good(of(users).get_user_details(device))


def read(*_):
    """Trips, statistics and accounts. How many calls that were."""
    found = of(trips).get_list_trips(DEVICE, **DAYS, unit_system="Si", include_scores=True)
    assert [trip["Identifiers"]["UserId"] for trip in found.trips] == [DEVICE] * 2, str(found)
    client = of(statistics)
    assert good(client.user_accumulated_safetyscore(DEVICE, **DAYS))[0]["SafetyScore"] == 82.4
    assert good(client.lastupdates(DEVICE))[0]["LatestTripDate"].startswith("2026-06-30")
    lists = [
        client.user_daily_statistics(DEVICE, **DAYS),
        client.user_daily_ecoscore(DEVICE, **DAYS),
        client.user_daily_safetyscore(DEVICE, **DAYS),
        client.user_accumulated_statistics(DEVICE, **DAYS),
        client.user_accumulated_ecoscore(DEVICE, **DAYS),
        client.entity_daily_statistics(**DAYS, company_id=COMPANY),
        client.entity_accumulated_safetyscore(**DAYS, company_id=COMPANY),
        client.entity_accumulated_statistics(**DAYS, company_id=COMPANY),
        client.uniquetags(DEVICE, **DAYS),
        of(accounts).get_instances(COMPANY),
        of(accounts).get_applications(COMPANY),
    ]
    assert all(good(response) for response in lists), [str(response) for response in lists]
    assert good(of(accounts).get_application_details(COMPANY)) is None, "no such application"
    return 3 + len(lists) + 1


def leaders():
    """Leaderboards, which the library asks for without any token."""
    for ask in (of(engagement).get_user_leaderboard, of(engagement).get_general_leaderboard):
        seen = good(ask(DEVICE))["Sim"]["DeviceToken"]
        assert seen == DEVICE, seen
    return DEVICE


def crowd():
    """The same from many threads at once, each with clients of its own."""

    def start(_):
        barrier.wait()
        return read()

    return sum(pool.map(start, range(THREADS)))


def shared():
    """One client object in the hands of many threads."""
    client = of(statistics)
    asked = pool.map(lambda _: client.user_accumulated_ecoscore(DEVICE, **DAYS), range(4 * THREADS))
    return sum(1 for response in asked if good(response))


def token():
    return of(statistics).auth_client.get_access_token()


def refresh():
    """What the library does about a 401, without one."""
    client = of(statistics).auth_client
    client.handle_401()
    assert client.access_token and client.refresh_token, "both tokens are there"


STEPS = (create, change, move, delete, read, leaders, crowd, shared, token, refresh)
steps = {step.__name__: step for step in STEPS}
for line in sys.stdin:
    name, *arguments = line.split()
    print(json.dumps(steps[name](*arguments)), flush=True)
