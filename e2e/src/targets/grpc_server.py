"""A gRPC server with bytes for messages: says `ended` on a line of its own when a call of Watch ended."""

import concurrent.futures
import sys
import threading
import time

import grpc


def get(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now, 100%")
    context.send_initial_metadata((("x-initial", "i"),))
    context.set_trailing_metadata((("x-trailing", "t"), ("x-bytes-bin", b"\x00\xff")))
    return request


def chat(requests, context):
    for request in requests:
        yield b"echo " + request


def watch(request, context):
    ended = threading.Event()

    # Not after the `yield`: a call that ends while the first answer leaves is not gone on with.
    def end():
        print(f"ended {time.time()}", flush=True)
        ended.set()

    context.add_callback(end)
    yield b"begin"
    ended.wait(60)


def collect(requests, context):
    return str(sum(len(request) for request in requests)).encode()


class Methods(grpc.GenericRpcHandler):
    def service(self, call):
        return {
            "/shop.Orders/Get": grpc.unary_unary_rpc_method_handler(get),
            "/shop.Orders/Chat": grpc.stream_stream_rpc_method_handler(chat),
            "/shop.Orders/Watch": grpc.unary_stream_rpc_method_handler(watch),
            "/shop.Orders/Collect": grpc.stream_unary_rpc_method_handler(collect),
        }.get(call.method)


SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=SIZES + [("grpc.so_reuseport", 0)])
server.add_generic_rpc_handlers((Methods(),))
if server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}") == 0:
    sys.exit("the port is taken")
server.start()
server.wait_for_termination()
