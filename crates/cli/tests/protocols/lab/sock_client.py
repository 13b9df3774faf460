"""WebSocket conversations by the package `websockets`. A target has `url`, and `ca` where TLS is spoken.

Its asyncio client, because its threaded one reads and writes one TLS session from two threads, which this Python does not
survive every time."""

import asyncio
import ssl
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def open_(target):
    context = ssl.create_default_context(cafile=target["ca"]) if "ca" in target else None
    return connect(target["url"], ssl=context, max_size=None, ping_interval=None, subprotocols=["lab"], open_timeout=60)


async def heard(socket):
    return await asyncio.wait_for(socket.recv(), 60)


async def talk(target):
    async with open_(target) as socket:
        await socket.send("grüße")
        said = {"text": await heard(socket), "subprotocol": socket.subprotocol}
        await socket.send(bytes(range(256)))
        said["binary"] = await heard(socket) == bytes(range(256))
        large = b"\x5a" * (3 << 20)
        await socket.send(large)
        said["large"] = await heard(socket) == large
        await socket.send(["in ", "three ", "parts"])
        said["parts"] = await heard(socket)
        seconds = await asyncio.wait_for(await socket.ping(), 60)
        said["pong"] = 0 < seconds < 60
    return said


async def close_codes(target):
    said = []
    for code in (1000, 1001, 1011, 4321):
        async with open_(target) as socket:
            await socket.send("close %d" % code)
            try:
                await heard(socket)
            except ConnectionClosed as closed:
                said.append([closed.rcvd.code, closed.rcvd.reason])
    return said


async def idle(target):
    """Says nothing for a while, then goes on."""
    async with open_(target) as socket:
        await asyncio.sleep(target["seconds"])
        try:
            await socket.send("still here")
            return {"heard": await heard(socket)}
        except ConnectionClosed as closed:
            return {"closed": str(closed)}


async def until_cut(target):
    """Talks until it is cut."""
    async with open_(target) as socket:
        told = 0
        try:
            while True:
                await socket.send("%d" % told)
                await heard(socket)
                told += 1
                await asyncio.sleep(0.02)
        except (ConnectionClosed, OSError) as error:
            return {"told": told, "at": time.time(), "how": str(error)}


async def refused(target):
    try:
        async with open_(target):
            return {"status": 101}
    except InvalidStatus as error:
        return {"status": error.response.status_code, "type": error.response.headers.get("content-type")}


async def live(target):
    """The clinic's own, which welcomes."""
    async with open_(target) as socket:
        said = [await heard(socket)]
        await socket.send("heard?")
        return said + [await heard(socket)]


def run(story, target):
    return asyncio.run(globals()[story](target))
