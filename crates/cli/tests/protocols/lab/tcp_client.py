"""Plain TCP. A target has `address` and `port`; `ca` and `name` where TLS is spoken."""

import hashlib
import os
import select
import socket
import ssl
import time


def open_(target):
    stream = socket.create_connection((target["address"], target["port"]), 60)
    stream.settimeout(60)
    if "ca" in target:
        context = ssl.create_default_context(cafile=target["ca"])
        stream = context.wrap_socket(stream, server_hostname=target["name"])
    return stream


def rest(stream):
    heard = b""
    while data := stream.recv(65536):
        heard += data
    return heard


def half_close(target):
    with open_(target) as stream:
        stream.sendall(b"first")
        said = [stream.recv(100).decode()]
        stream.sendall(b"second")
        stream.shutdown(socket.SHUT_WR)
        said.append(rest(stream).decode())
        return said


class Sending:
    """Sends parts while something is waited for, in one thread: a TLS connection of Python's is not to be used by two at once."""

    def __init__(self, stream, parts):
        stream.setblocking(False)
        self.stream, self.parts, self.left = stream, parts, memoryview(b"")

    def receive(self, most):
        while True:
            try:
                return self.stream.recv(most)
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            self.left = self.left or memoryview(next(self.parts, b""))
            sent = 0
            try:
                if self.left:
                    sent = self.stream.send(self.left[: 1 << 16])
                    self.left = self.left[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass
            if not sent:
                select.select([self.stream], [self.stream] if self.left else [], [], 60)


def both_ways(target):
    """10 MiB there and back at the same time."""
    data = os.urandom(10 << 20)
    with open_(target) as stream:
        sending = Sending(stream, iter([data]))
        heard = bytearray()
        while len(heard) < len(data):
            part = sending.receive(1 << 20)
            if not part:
                raise EOFError("ended after %d" % len(heard))
            heard += part
        return {"length": len(heard), "same": hashlib.sha256(heard).digest() == hashlib.sha256(data).digest()}


def until_cut(target):
    with open_(target) as stream:
        told = 0
        try:
            while True:
                stream.sendall(b"x")
                if not stream.recv(10):
                    raise EOFError("ended")
                told += 1
                time.sleep(0.02)
        except (OSError, EOFError) as error:
            return {"told": told, "at": time.time(), "how": repr(error)}


def dial(target):
    """Whether anything is heard at all."""
    try:
        with open_(target) as stream:
            stream.sendall(b"hello")
            return {"heard": stream.recv(100).decode()}
    except OSError as error:
        return {"refused": repr(error)}


def run(story, target):
    return globals()[story](target)
