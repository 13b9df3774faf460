"""WebSocket conversations by the package `websockets`. A target has `url`, and `ca` where TLS is spoken."""

import ssl
import time

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def open_(target):
    context = ssl.create_default_context(cafile=target["ca"]) if "ca" in target else None
    return connect(target["url"], ssl=context, max_size=None, ping_interval=None, subprotocols=["lab"], open_timeout=10)


def talk(target):
    with open_(target) as socket:
        socket.send("grüße")
        said = {"text": socket.recv(10), "subprotocol": socket.subprotocol}
        socket.send(bytes(range(256)))
        said["binary"] = list(socket.recv(10)) == list(range(256))
        large = b"\x5a" * (3 << 20)
        socket.send(large)
        said["large"] = socket.recv(30) == large
        socket.send(["in ", "three ", "parts"])
        said["parts"] = socket.recv(10)
        start = time.monotonic()
        said["pong"] = socket.ping().wait(10)
        said["pong_seconds"] = time.monotonic() - start
    return said


def close_codes(target):
    said = []
    for code in (1000, 1001, 1011, 4321):
        with open_(target) as socket:
            socket.send("close %d" % code)
            try:
                socket.recv(10)
            except ConnectionClosed as closed:
                said.append([closed.rcvd.code, closed.rcvd.reason])
    return said


def idle(target):
    """Says nothing for a while, then goes on."""
    with open_(target) as socket:
        time.sleep(target["seconds"])
        socket.send("still here")
        return socket.recv(10)


def until_cut(target):
    """Talks until it is cut."""
    with open_(target) as socket:
        told = 0
        try:
            while True:
                socket.send("%d" % told)
                socket.recv(10)
                told += 1
                time.sleep(0.02)
        except (ConnectionClosed, OSError) as error:
            return {"told": told, "at": time.time(), "how": str(error)}


def refused(target):
    try:
        with open_(target):
            return {"status": 101}
    except InvalidStatus as error:
        return {"status": error.response.status_code, "type": error.response.headers.get("content-type")}


def run(story, target):
    return globals()[story](target)
