"""Plain TCP: says back what it hears; when the caller has ended its half, says how much it was, and ends its own."""

import socketserver
import sys


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        length = 0
        while data := self.request.recv(65536):
            length += len(data)
            self.request.sendall(data)
        self.request.sendall(b"\nheard %d" % length)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
