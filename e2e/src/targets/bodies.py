"""Bodies of any length: `serve PORT` gives and takes them, `make LENGTH` writes one, `sum` reads one. Sums are SHA-256."""

import hashlib
import http.server
import sys

BLOCK = 1 << 20


def blocks(length):
    sent = number = 0
    base = bytes((n * 2654435761 >> 7) & 255 for n in range(BLOCK))
    while sent < length:
        # No two blocks are alike: one that is lost or comes twice shows.
        block = number.to_bytes(8, "big") + base[8:]
        piece = block[: length - sent]
        yield piece
        sent += len(piece)
        number += 1


def total(pieces):
    digest, length = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        length += len(piece)
    return f"{length} {digest.hexdigest()}"


def pieces_of(stream, length):
    while length:
        piece = stream.read(min(length, BLOCK))
        if not piece:
            raise EOFError
        length -= len(piece)
        yield piece


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, _, how = self.path.partition("?")
        length = int(path[1:])
        self.send_response(200)
        if how == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        for piece in blocks(length):
            if how == "chunked":
                piece = b"%x\r\n%s\r\n" % (len(piece), piece)
            self.wfile.write(piece)
        if how == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def chunks(self):
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield from pieces_of(self.rfile, size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def do_PUT(self):
        if self.headers.get("transfer-encoding") == "chunked":
            said = "chunked " + total(self.chunks())
        else:
            said = "length " + total(pieces_of(self.rfile, int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


if sys.argv[1] == "serve":
    Server(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
elif sys.argv[1] == "make":
    for piece in blocks(int(sys.argv[2])):
        sys.stdout.buffer.write(piece)
elif sys.argv[1] == "sum":
    print(total(iter(lambda: sys.stdin.buffer.read(BLOCK), b"")))
