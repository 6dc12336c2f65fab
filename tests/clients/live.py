"""What a service does that follows its users live with the package websockets.

    live.py BASE_URL DEVICE_TOKEN INSTANCE_ID INSTANCE_KEY

Logs in by itself, connects again whenever the connection ends, and writes each message as a line
of JSON with the number of its connection. Each line of its input ends the connection.
"""

import asyncio
import json
import sys
import time
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

BASE_URL, DEVICE, INSTANCE, KEY = sys.argv[1:]
LIVE_URL = BASE_URL.replace("http", "ws", 1) + "/realtime/api/v1/ws/realtime"


def log_in():
    login = {"LoginFields": json.dumps({"Devicetoken": DEVICE}), "Password": KEY}
    request = urllib.request.Request(
        f"{BASE_URL}/v1/Auth/Login",
        data=json.dumps(login).encode(),
        headers={"Content-Type": "application/json", "InstanceId": INSTANCE},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["Result"]["AccessToken"]["Token"]


async def follow(number, socket, token):
    first = {
        "type": "authenticate",
        "access_token": token,
        "instance_id": INSTANCE,
        "device_token": DEVICE,
        "client_id": "live.py",
    }
    await socket.send(json.dumps(first))
    async for text in socket:
        message = json.loads(text)
        if message["type"] == "error":
            raise RuntimeError(message)
        if message["type"] == "ping":
            await socket.send(json.dumps({"type": "pong", "timestamp": time.time()}))
        print(json.dumps({"connection": number, **message}), flush=True)


async def main():
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    token = await asyncio.to_thread(log_in)
    number = 0
    async for socket in connect(LIVE_URL):
        number += 1
        following = asyncio.create_task(follow(number, socket, token))
        told = asyncio.create_task(lines.readline())
        await asyncio.wait((following, told), return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            await socket.close()
            if not told.result():
                return
        told.cancel()
        try:
            await following
        except ConnectionClosed:
            continue


asyncio.run(main())
