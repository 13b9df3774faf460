"""HTTP/1.1 by hand over a socket, so that what is sent is what the story says. A target has `address` and `port`; `ca` where TLS
is spoken; `host` for the Host field."""

import itertools
import json
import time

from tcp_client import Sending
from tcp_client import open_ as open_socket


class Wire:
    def __init__(self, target):
        self.stream = open_socket({"name": target["address"], **target})
        self.host = target.get("host", target["address"])
        self.read = b""

    def send(self, text):
        self.stream.sendall(text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode())

    def request(self, line, *fields):
        self.send("\n".join([line + " HTTP/1.1", "host: " + self.host, *fields, "", ""]))

    def more(self):
        data = self.stream.recv(65536)
        self.read += data
        return data

    def until(self, mark):
        while mark not in self.read:
            if not self.more():
                raise EOFError("ended with %r" % self.read[:200])
        found, self.read = self.read.split(mark, 1)
        return found

    def exactly(self, length):
        while len(self.read) < length:
            if not self.more():
                raise EOFError("ended after %d of %d" % (len(self.read), length))
        found, self.read = self.read[:length], self.read[length:]
        return found

    def head(self):
        first, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = {}
        for line in lines:
            name, value = line.split(": ", 1)
            fields.setdefault(name.lower(), value)
        return int(first.split(" ")[1]), fields

    def chunks(self):
        while size := int(self.until(b"\r\n"), 16):
            yield self.exactly(size)
            self.exactly(2)

    def trailers(self):
        found = {}
        while line := self.until(b"\r\n"):
            name, value = line.decode().split(": ", 1)
            found[name.lower()] = value
        return found

    def response(self, head_only=False):
        status, fields = self.head()
        if head_only or status in (204, 304) or status < 200:
            return status, fields, b"", {}
        if fields.get("transfer-encoding") == "chunked":
            body = b"".join(self.chunks())
            return status, fields, body, self.trailers()
        if "content-length" in fields:
            return status, fields, self.exactly(int(fields["content-length"])), {}
        while self.more():
            pass
        return status, fields, self.read, {}

    def ended(self, seconds):
        """Whether the other side closes within this time, with nothing more to say."""
        self.stream.settimeout(seconds)
        try:
            return self.stream.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def chunked_both_ways(wire):
    """A chunk is answered before the next is sent; trailers go both ways."""
    wire.request("POST /echo", "transfer-encoding: chunked", "trailer: x-sum", "te: trailers")
    said = []
    answers = None
    for number in range(10):
        wire.send(b"6\r\nping %d\r\n" % number)
        if answers is None:
            status, _ = wire.head()
            answers = wire.chunks()
        heard = b""
        while len(heard) < 6:
            heard += next(answers)
        said.append(heard.decode())
    wire.send("0\nx-sum: 60\n\n")
    rest = list(answers)
    return {"status": status, "said": said, "rest": len(rest), "trailers": wire.trailers()}


def trailers_only_for_who_takes_them(wire):
    wire.request("POST /echo", "transfer-encoding: chunked")
    wire.send("3\nabc\n0\n\n")
    _, _, body, trailers = wire.response()
    return {"body": body.decode(), "trailers": trailers}


def expect_continue(wire):
    wire.request("POST /heard", "content-length: 5", "expect: 100-continue")
    interim, _ = wire.head()
    wire.send(b"12345")
    status, _, body, _ = wire.response()
    return {"interim": interim, "status": status, "body": json.loads(body)}


def expect_refused(wire):
    """The callee does not want the body; none is sent."""
    wire.request("POST /unwilling", "content-length: 5", "expect: 100-continue")
    status, _, body, _ = wire.response()
    return {"status": status, "body": body.decode()}


def head(wire):
    said = []
    for path in ("/bytes/1000", "/headers", "/nowhere/else"):
        wire.request("HEAD " + path)
        status, fields, _, _ = wire.response(head_only=True)
        said.append([status, fields.get("content-length")])
    # Nothing of a body has followed: the next answer is in step.
    wire.request("GET /bytes/3")
    return {"heads": said, "then": len(wire.response()[2])}


def head_refused(wire):
    """The answer to a HEAD has no body, whoever gives it: what comes next is in step."""
    wire.request("HEAD /absent")
    status, fields, _, _ = wire.response(head_only=True)
    wire.request("GET /absent")
    then, _, body, _ = wire.response()
    return {"head": status, "length": int(fields["content-length"]) > 0, "then": then, "told": json.loads(body)["status"]}


def keep_alive(wire):
    bodies = []
    for number in range(50):
        wire.request("GET /number/%d" % number)
        bodies.append(wire.response()[2].decode())
    wire.request("GET /last/1", "connection: close")
    status, fields, _, _ = wire.response()
    return {"in_order": bodies == ["/number/%d" % n for n in range(50)], "last": status, "closed": wire.ended(60)}


def pipelined(wire):
    paths = ["/one/1", "/sleep/0.3", "/three/3", "/bytes/100000", "/five/5"]
    wire.send("".join("GET %s HTTP/1.1\nhost: %s\n\n" % (path, wire.host) for path in paths))
    return [len(wire.response()[2]) for _ in paths]


def early_answer(wire):
    """The answer to a body that is still being sent is there at once."""
    wire.request("POST /early", "content-length: 1000000000")
    wire.send(bytes(1000))
    start = time.monotonic()
    status, _, body, _ = wire.response()
    return {"status": status, "body": body.decode(), "seconds": time.monotonic() - start}


def interim(wire):
    wire.request("GET /hints")
    status, fields = wire.head()
    if status == 103:
        status, fields = wire.head()
    return {"status": status, "body": wire.exactly(int(fields["content-length"])).decode()}


def streams_as_it_comes(wire):
    start, times = time.monotonic(), []
    wire.request("GET /drip/5")
    wire.head()
    for _ in wire.chunks():
        times.append(time.monotonic() - start)
    return {"pieces": len(times), "first": times[0], "last": times[-1]}


def until_close(wire):
    wire.request("GET /until-close")
    status, _, body, _ = wire.response()
    return {"status": status, "body": body.decode()}


def empty(wire):
    wire.request("DELETE /empty")
    status, fields, _, _ = wire.response()
    wire.request("GET /after/it")
    return {"status": status, "length": fields.get("content-length"), "then": wire.response()[2].decode()}


def large_down(wire):
    """50 MiB, taken slowly at first: what is not taken must not pile up on the way."""
    wire.request("GET /bytes/%d" % (50 << 20))
    _, fields = wire.head()
    time.sleep(1.5)
    length = len(wire.read)
    while length < 50 << 20 and (data := wire.stream.recv(1 << 20)):
        length += len(data)
    return {"declared": int(fields["content-length"]), "length": length}


def large_up(wire):
    wire.request("POST /heard", "content-length: %d" % (50 << 20))
    for _ in range(50):
        wire.send(bytes(1 << 20))
    return json.loads(wire.response()[2])


def large_chunked_echo(wire):
    """50 MiB there and back at the same time."""
    wire.request("POST /echo", "transfer-encoding: chunked")

    parts = itertools.chain((b"100000\r\n" + bytes(1 << 20) + b"\r\n" for _ in range(50)), [b"0\r\n\r\n"])
    sending = Sending(wire.stream, parts)

    def more():
        data = sending.receive(65536)
        wire.read += data
        return data

    wire.more = more
    wire.head()
    return sum(len(chunk) for chunk in wire.chunks())


REFUSED = {
    "bytes of a head": "GET / HTTP/1.1\nhost: a\nx: %s\n\n" % ("y" * 13000),
    "number of fields": "GET / HTTP/1.1\nhost: a\n%s\n" % "".join("x-%d: 1\n" % k for k in range(40)),
    "length of a body": "POST /heard HTTP/1.1\nhost: a\ncontent-length: 2000000\n\n",
    "growth of a body": "POST /heard HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n200000\n" + "z" * 0x200000,
    "time of a head": "GET / HTTP/1.1\nhost: a\nx: ",
    "both framings": "POST / HTTP/1.1\nhost: a\ncontent-length: 3\ntransfer-encoding: chunked\n\n0\n\n",
    "two hosts": "GET / HTTP/1.1\nhost: a\nhost: b\n\n",
    "no host": "GET / HTTP/1.1\n\n",
    "version": "GET / HTTP/3.0\nhost: a\n\n",
    "length of a target": "GET /%s HTTP/1.1\nhost: a\n\n" % ("t" * 8200),
    "tunnel": "CONNECT a:443 HTTP/1.1\nhost: a:443\n\n",
}


def one_refusal(target, text):
    """On a connection of its own: what status comes."""
    wire = Wire(target)
    try:
        wire.send(text)
    except OSError:
        pass
    start = time.monotonic()
    status, fields, body, _ = wire.response()
    problem = json.loads(body)
    said = {"status": status, "type": fields.get("content-type"), "problem": problem["status"], "event": problem["instance"]}
    return {**said, "seconds": time.monotonic() - start, "closed": wire.ended(60)}


def idle_connection_ends(wire):
    start = time.monotonic()
    wire.request("GET /first/1")
    wire.response()
    return {"ended": wire.ended(60), "seconds": time.monotonic() - start}


def failures(wire):
    """How the callee fails, and what the caller is told."""
    said = {}
    for path in ("drop", "junk", "sleep/9"):
        wire.request("GET /" + path)
        start = time.monotonic()
        status, fields, body, _ = wire.response()
        said[path] = {"status": status, "type": fields["content-type"], "instance": json.loads(body)["instance"]}
        said[path]["seconds"] = time.monotonic() - start
    # Each was an answer in step: the connection is still good.
    wire.request("GET /still/good")
    said["then"] = wire.response()[2].decode()
    return said


def half(wire):
    """An answer that breaks off is not made whole."""
    wire.request("GET /half")
    try:
        return {"whole": wire.response()[2].decode()}
    except (EOFError, OSError) as error:
        return {"broken": str(error)}


def reuse(wire):
    wire.request("GET /counts")
    before = json.loads(wire.response()[2])
    for _ in range(50):
        wire.request("GET /again/1")
        wire.response()
    wire.request("GET /counts")
    after = json.loads(wire.response()[2])
    return {name: after[name] - before[name] for name in after}


def headers(wire):
    wire.request(
        "GET /headers?q=1",
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Proto: gopher",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Port: 1",
        "X-Real-IP: 6.6.6.6",
        "Forwarded: for=6.6.6.6;host=evil.example",
        "X-Forwarded-Client-Cert: URI=spiffe://lab.example/service/admin",
        "Connection: keep-alive, x-hop",
        "X-Hop: to be dropped",
        "Keep-Alive: timeout=99",
        "Proxy-Authorization: Basic eA==",
        "TE: trailers",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: lab=1",
        "X-Own: kept",
        "Cookie: a=b",
    )
    return json.loads(wire.response()[2])


def plain_get(wire):
    wire.request("GET /headers")
    status, fields, body, _ = wire.response()
    return {"status": status, "type": fields.get("content-type"), "body": json.loads(body)}


def run(story, target):
    if story == "refusals":
        return {name: one_refusal(target, text) for name, text in REFUSED.items()}
    return globals()[story](Wire(target))
