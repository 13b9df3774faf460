"""Every kind of gRPC call by grpcio. A target has `address`, and `ca` where TLS is spoken."""

import asyncio
import queue
import time

import grpc

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
ECHO = "/lab.Echo/"


def credentials(target):
    with open(target["ca"], "rb") as file:
        return grpc.ssl_channel_credentials(file.read())


def channel(target):
    if "ca" in target:
        return grpc.secure_channel(target["address"], credentials(target), UNLIMITED)
    return grpc.insecure_channel(target["address"], UNLIMITED)


def text(metadata):
    return {key: value if isinstance(value, str) else list(value) for key, value in metadata}


def refusal(error):
    return {"code": error.code().name, "details": error.details(), "trailing": text(error.trailing_metadata() or ())}


def unary(ch):
    answer, call = ch.unary_unary(ECHO + "Unary").with_call(b"hello", timeout=60, metadata=(("lab-in", "given"),))
    return {"answer": answer.decode(), "first": text(call.initial_metadata()), "last": text(call.trailing_metadata())}


def statuses(ch):
    said = {}
    for code in ("NOT_FOUND", "INVALID_ARGUMENT", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED", "ABORTED", "DATA_LOSS"):
        try:
            ch.unary_unary(ECHO + "Fail")((code + ":zu früh, 100 %").encode(), timeout=60)
        except grpc.RpcError as error:
            said[code] = refusal(error)
    return said


def server_stream(ch):
    return [int(answer) for answer in ch.unary_stream(ECHO + "Count")(b"1000", timeout=60)]


def client_stream(ch):
    return int(ch.stream_unary(ECHO + "Total")((b"x" * 1000 for _ in range(500)), timeout=60))


def enough(ch):
    """A refusal in the middle of a large upload, ten times."""
    said = set()
    for _ in range(10):
        try:
            ch.stream_unary(ECHO + "Picky")((bytes(100_000) for _ in range(100)), timeout=60)
        except grpc.RpcError as error:
            said.add(error.code().name + " " + error.details())
    return sorted(said)


def ping_pong(ch):
    """Each question is asked after the answer to the one before: what is held back would block this."""
    questions = queue.Queue()
    answers = ch.stream_stream(ECHO + "Chat")(iter(questions.get, None), timeout=60)
    said = []
    for number in range(50):
        questions.put(b"%d" % number)
        said.append(next(answers).decode())
    questions.put(None)
    return {"said": said, "rest": len(list(answers)), "code": answers.code().name}


def deadline(ch):
    start = time.monotonic()
    try:
        ch.unary_unary(ECHO + "Wait")(b"", timeout=0.5)
    except grpc.RpcError as error:
        return {**refusal(error), "seconds": time.monotonic() - start}


def deadline_is_told(ch):
    return float(ch.unary_unary(ECHO + "Left")(b"", timeout=60))


def cancel(ch):
    count = lambda what: int(ch.unary_unary(ECHO + what)(b"", timeout=60))
    ended, begun = lambda: count("Ended"), lambda: count("Begun")

    def until(holds):
        start = time.monotonic()
        while not holds() and time.monotonic() - start < 30:
            time.sleep(0.02)
        return start

    # The end of the call before this story may still be on its way.
    until(lambda: begun() == ended())
    before, waits = ended(), begun()
    call = ch.unary_unary(ECHO + "Wait").future(b"", timeout=60)
    until(lambda: begun() > waits)
    call.cancel()
    start = until(lambda: ended() > before)
    return {"more": ended() - before, "seconds": time.monotonic() - start, "code": call.code().name}


def large(ch):
    message = bytes(range(256)) * (8 * 1024 * 4)
    answer = ch.unary_unary(ECHO + "Unary")(message, timeout=60)
    return {"length": len(answer), "same": answer == message}


def invoices(ch):
    """The clinic's own billing, in Rust; its messages by hand: field 1, a string."""
    get = ch.unary_unary("/clinic.billing.v1.Billing/GetInvoice")
    said = {"invoice": b"p-1001" in get(b"\x0a\x06i-3001", timeout=60)}
    said["all"] = len(list(ch.unary_stream("/clinic.billing.v1.Billing/ListInvoices")(b"", timeout=60)))
    watch = queue.Queue()
    notices = ch.stream_stream("/clinic.billing.v1.Billing/Watch")(iter(watch.get, None), timeout=60)
    watch.put(b"\x0a\x06p-1002")
    said["notice"] = b"i-3002" in next(notices)
    record = ch.stream_unary("/clinic.billing.v1.Billing/RecordItems")
    item = b"\x0a\x06i-3002\x12\x08\x0a\x03tea\x10\x96\x01"
    said["receipt"] = list(record(iter([item, item]), timeout=60))
    said["changed"] = b"tea" in next(notices)
    watch.put(None)
    try:
        get(b"\x0a\x06i-9999", timeout=60)
    except grpc.RpcError as error:
        said["missing"] = refusal(error)
    return said


def refused(ch):
    start = time.monotonic()
    try:
        ch.unary_unary(ECHO + "Unary")(b"hello", timeout=60)
    except grpc.RpcError as error:
        return {**refusal(error), "seconds": time.monotonic() - start}


async def many_streams(target):
    """200 streams open at once, each in conversation."""
    if "ca" in target:
        ch = grpc.aio.secure_channel(target["address"], credentials(target))
    else:
        ch = grpc.aio.insecure_channel(target["address"])
    calls = [ch.stream_stream(ECHO + "Chat")(timeout=120) for _ in range(200)]
    answered = 0
    for turn in range(3):
        for call in calls:
            await call.write(b"%d" % turn)
        for call in calls:
            answered += (await call.read()) == b"re:%d" % turn
    for call in calls:
        await call.done_writing()
    codes = {(await call.code()).name for call in calls}
    await ch.close()
    return {"answered": answered, "codes": sorted(codes)}


def run(story, target):
    if story == "many_streams":
        return asyncio.run(many_streams(target))
    with channel(target) as ch:
        return globals()[story](ch)
