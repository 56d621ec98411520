"""A gRPC client: `ADDRESS AUTHORITY WHAT`. What it saw is one line of JSON; `watch` first says `begun`."""

import concurrent.futures
import json
import sys
import time

import grpc

address, authority, what = sys.argv[1:4]
channel = grpc.insecure_channel(
    address,
    options=[
        ("grpc.default_authority", authority),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_retries", 0),
    ],
)
get = channel.unary_unary("/shop.Orders/Get")
chat = channel.stream_stream("/shop.Orders/Chat")
watch = channel.unary_stream("/shop.Orders/Watch")
collect = channel.stream_unary("/shop.Orders/Collect")


def failure(error):
    return {"code": error.code().name, "details": error.details()}


def pairs(metadata):
    return {key: value if isinstance(value, str) else value.hex() for key, value in metadata}


def say(seen):
    print(json.dumps(seen), flush=True)


if what == "get":
    try:
        answer, call = get.with_call(sys.argv[4].encode(), timeout=20)
        initial, trailing = pairs(call.initial_metadata()), pairs(call.trailing_metadata())
        say({"answer": answer.decode(), "initial": initial, "trailing": trailing})
    except grpc.RpcError as error:
        say(failure(error))
elif what == "chat":
    # Each message is sent when the answer to the one before it has come.
    came = []

    def sent():
        for number in range(int(sys.argv[4])):
            while len(came) < number:
                time.sleep(0.0005)
            yield str(number).encode()

    for answer in chat(sent(), timeout=60):
        came.append(answer.decode())
    say({"came": came})
elif what == "sizes":
    seen = []
    for size in (0, 1, 65535, 65536, 65537, 5_000_000):
        message = bytes((n * 31) & 255 for n in range(min(size, 1000))) * (size // 1000 + 1)
        message = message[:size]
        seen.append(get(message, timeout=60) == message)
    total = collect((b"x" * 100_000 for _ in range(100)), timeout=60)
    say({"equal": seen, "collected": int(total)})
elif what == "many":
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: get(str(n).encode(), timeout=60), range(int(sys.argv[4]))))
    say({"equal": answers == [str(n).encode() for n in range(int(sys.argv[4]))]})
elif what == "deadline":
    try:
        list(watch(b"", timeout=1))
    except grpc.RpcError as error:
        say({"at": time.time(), **failure(error)})
elif what == "watch":
    call = watch(b"", timeout=60)
    assert next(call) == b"begin"
    print("begun", flush=True)
    try:
        next(call)
    except grpc.RpcError as error:
        say({"at": time.time(), **failure(error)})
