"""A gRPC service of grpcio with every kind of call."""

import asyncio
import sys

import grpc

begun = cancelled = 0


async def unary(request, context):
    seen = dict(context.invocation_metadata())
    await context.send_initial_metadata((("lab-first", "before"),))
    context.set_trailing_metadata((("lab-last", "after"), ("lab-saw", seen.get("lab-in", "nothing")), ("lab-bin", b"\0\xff\x10")))
    return request


async def fail(request, context):
    code, message = request.decode().split(":", 1)
    context.set_trailing_metadata((("lab-why", "asked"),))
    await context.abort(grpc.StatusCode[code], message)


async def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number


async def total(requests, context):
    length = 0
    async for request in requests:
        length += len(request)
    return b"%d" % length


async def picky(requests, context):
    """Has heard enough after one message, whatever else is on its way."""
    await anext(requests)
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "enough")


async def chat(requests, context):
    async for request in requests:
        yield b"re:" + request


async def wait(request, context):
    global begun, cancelled
    begun += 1
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled += 1
        raise
    return b"too late"


async def waits(request, context):
    return b"%d" % begun


async def ended(request, context):
    return b"%d" % cancelled


async def left(request, context):
    return b"%f" % (context.time_remaining() or -1)


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Picky": grpc.stream_unary_rpc_method_handler(picky),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Begun": grpc.unary_unary_rpc_method_handler(waits),
    "Ended": grpc.unary_unary_rpc_method_handler(ended),
    "Left": grpc.unary_unary_rpc_method_handler(left),
}


async def main():
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Echo", METHODS),))
    server.add_insecure_port("127.0.0.1:" + sys.argv[1])
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
