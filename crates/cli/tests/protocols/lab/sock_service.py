"""A WebSocket service: says back what it hears, and closes with the code that it is asked for."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def converse(socket):
    try:
        async for message in socket:
            if isinstance(message, str) and message.startswith("close "):
                await socket.close(int(message.split()[1]), "as you wish")
            elif message == "headers":
                await socket.send("\n".join("%s: %s" % pair for pair in socket.request.headers.raw_items()))
            else:
                await socket.send(message)
    finally:
        print("the conversation ended with", socket.close_code, flush=True)


async def main():
    async with serve(converse, "127.0.0.1", int(sys.argv[1]), subprotocols=["lab"], max_size=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
