#!/usr/bin/env python3
"""Loads that wrk cannot make: callers of large answers who read without looking, or slowly, and
callers who stay. Run as a program it is the first:

    load.py PORT PATH DEVICE_TOKEN CONNECTIONS SECONDS

It prints the bytes of content that came within the time, and the time, as JSON."""

import concurrent.futures
import contextlib
import http.client
import json
import socket
import sys
import time

PIECE = 256 << 10


class Stream:
    """A connection that asks for one large answer after another."""

    def __init__(self, port, path, device, receive_buffer=None):
        self.request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nDeviceToken: {device}\r\n\r\n".encode()
        self.socket = socket.socket()
        if receive_buffer is not None:
            # Set before connecting, it bounds the window.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))

    def head(self):
        """Asks, and reads the head of the answer; the bytes of content that came with it, and those
        still to come."""
        self.socket.sendall(self.request)
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.socket.recv(4096)
            if not piece:
                raise OSError("closed before the end of the head")
            head += piece
        head, content = head.split(b"\r\n\r\n", 1)
        status, *fields = head.decode().split("\r\n")
        lengths = [int(field.split(":")[1]) for field in fields if field.lower().startswith("content-length:")]
        if " 200 " not in status or not lengths:
            raise OSError(f"not an answer of known length: {head}")
        return len(content), lengths[0] - len(content)

    def discard(self, buffer, most):
        """The length of the next piece, which the kernel throws away instead of copying it."""
        read = self.socket.recv_into(buffer, min(most, len(buffer)), socket.MSG_TRUNC)
        if read == 0:
            raise OSError("closed before the end of the content")
        return read


def as_fast_as_it_comes(port, path, device, connections, seconds):
    """Content bytes read by all connections within the seconds."""
    began = time.monotonic()
    end = began + seconds

    def read_on():
        stream, buffer, read = Stream(port, path, device), bytearray(PIECE), 0
        with stream.socket:
            while time.monotonic() < end:
                piece, left = stream.head()
                read += piece
                while left > 0 and time.monotonic() < end:
                    piece = stream.discard(buffer, left)
                    read, left = read + piece, left - piece
        return read

    read = sum(together(read_on, connections))
    return {"bytes": read, "seconds": time.monotonic() - began}


def slowly(port, path, device, connections, bytes_per_second):
    """Reads one answer a connection at this pace."""
    piece = 64 << 10

    def read_on():
        stream, buffer = Stream(port, path, device, receive_buffer=piece), bytearray(piece)
        with stream.socket:
            _, left = stream.head()
            due = time.monotonic()
            while left > 0:
                read = stream.discard(buffer, left)
                left -= read
                due += read / bytes_per_second
                time.sleep(max(0, due - time.monotonic()))

    together(read_on, connections)


def together(work, times):
    """Runs it this many times at once; what each returned. What one raises, this raises."""
    with concurrent.futures.ThreadPoolExecutor(times) as threads:
        return [each.result() for each in [threads.submit(work) for _ in range(times)]]


@contextlib.contextmanager
def callers_who_stay(port, path, devices, connections, requests):
    """Connections that have all made some requests, each time all at once, and are open."""
    open_ones = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(connections)]
    try:
        for number in range(requests):
            for index, connection in enumerate(open_ones):
                device = devices[(number * connections + index) % len(devices)]
                connection.request("GET", path, headers={"DeviceToken": device})
            for connection in open_ones:
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200 or answer.will_close:
                    raise OSError(f"answered {answer.status} {answer.headers}")
        yield
    finally:
        for connection in open_ones:
            connection.close()


if __name__ == "__main__":
    port, path, device, connections, seconds = sys.argv[1:]
    print(json.dumps(as_fast_as_it_comes(int(port), path, device, int(connections), float(seconds))))
