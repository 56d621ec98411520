"""Answers every request with 200 and prints the path that http.server's file handler would serve, as a line of JSON."""

import http.server
import json
import posixpath
import sys
import urllib.parse


def understood(target):
    # The steps of SimpleHTTPRequestHandler.translate_path: cut query and fragment, decode once, normalise.
    path = target.split("?", 1)[0].split("#", 1)[0]
    trailing_slash = path.rstrip().endswith("/")
    path = urllib.parse.unquote(path, errors="replace")
    words = [word for word in posixpath.normpath(path).split("/") if word not in ("", ".", "..")]
    return "/" + "/".join(words) + ("/" if trailing_slash and words else "")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def drain(self):
        # What is left of a body would be read as the next request.
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                self.rfile.read(size + 2)
            while self.rfile.readline().strip():
                pass
        else:
            self.rfile.read(int(self.headers.get("content-length", 0)))

    def answer(self):
        self.drain()
        # A method that is not listed is answered by the base class, with 501.
        case = self.headers.get("x-case", "")
        sys.stdout.write(json.dumps({"path": understood(self.path), "case": case}) + "\n")
        body = b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
