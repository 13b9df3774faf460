"""An HTTP/1.1 server that does on the wire exactly what its paths say, so that nothing is smoothed over by a library."""

import asyncio
import json
import sys

connections = 0
requests = 0


async def head_of(reader):
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1")[:-4].split("\r\n")
    method, target, _ = first.split(" ")
    fields = [tuple(line.split(": ", 1)) for line in lines]
    return method, target, fields, {name.lower(): value for name, value in fields}


async def body_of(reader, by_name):
    """Yields pieces, then the trailers as a dict."""
    if by_name.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        trailers = {}
        while (line := await reader.readline()) != b"\r\n":
            name, value = line.decode().strip().split(": ", 1)
            trailers[name.lower()] = value
        yield trailers
        return
    left = int(by_name.get("content-length", 0))
    while left:
        piece = await reader.read(min(left, 65536))
        left -= len(piece)
        yield piece
    yield {}


async def serve(reader, writer):
    global connections, requests
    connections += 1
    try:
        while True:
            method, target, fields, by_name = await head_of(reader)
            requests += 1
            await answer(reader, writer, method, target, fields, by_name)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def plain(writer, method, body, status="200 OK", more=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(data)}\r\n{more}\r\n".encode())
    if method != "HEAD":
        writer.write(data)


async def answer(reader, writer, method, target, fields, by_name):
    path, _, value = target.split("?")[0].lstrip("/").partition("/")
    if path == "early":
        # The answer comes before the body is read. Closing on unread bytes would reset the connection and take the answer along.
        plain(writer, method, b"enough", "413 Content Too Large", "connection: close\r\n")
        await writer.drain()
        writer.write_eof()
        while await reader.read(65536):
            pass
        raise asyncio.IncompleteReadError(b"", None)
    if path == "unwilling":
        plain(writer, method, b"no", "417 Expectation Failed", "connection: close\r\n")
        await writer.drain()
        raise asyncio.IncompleteReadError(b"", None)
    if "expect" in by_name:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if path == "echo":
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-heard\r\n\r\n")
        length = 0
        async for piece in body_of(reader, by_name):
            if isinstance(piece, dict):
                writer.write(b"0\r\nx-heard: %d\r\n" % length)
                writer.write(b"".join(b"x-back-%s: %s\r\n" % (n.encode(), v.encode()) for n, v in piece.items()) + b"\r\n")
            else:
                length += len(piece)
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
        return
    length = 0
    async for piece in body_of(reader, by_name):
        length += 0 if isinstance(piece, dict) else len(piece)
    if path == "heard":
        plain(writer, method, {"heard": length, "framing": by_name.get("transfer-encoding", "length")})
    elif path == "headers":
        plain(writer, method, {"line": f"{method} {target}", "fields": fields})
    elif path == "bytes":
        left = int(value)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
        while left and method != "HEAD":
            writer.write(bytes(min(left, 65536)))
            left -= min(left, 65536)
            await writer.drain()
    elif path == "until-close":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nas long as it lasts")
        await writer.drain()
        raise asyncio.IncompleteReadError(b"", None)
    elif path == "drip":
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(int(value)):
            writer.write(b"2\r\n%d\n\r\n" % number)
            await writer.drain()
            await asyncio.sleep(0.2)
        writer.write(b"0\r\n\r\n")
    elif path == "hints":
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n")
        plain(writer, method, b"after hints")
    elif path == "sleep":
        await asyncio.sleep(float(value))
        plain(writer, method, b"rested")
    elif path == "drop":
        raise asyncio.IncompleteReadError(b"", None)
    elif path == "junk":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc")
    elif path == "half":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
        await writer.drain()
        raise asyncio.IncompleteReadError(b"", None)
    elif path == "empty":
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    elif path == "counts":
        plain(writer, method, {"connections": connections, "requests": requests})
    else:
        plain(writer, method, target.encode())


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    await server.serve_forever()


asyncio.run(main())
