"""A service of patients that nobody described yet."""
import http.server
import json
import urllib.parse

PATIENT = {"id": 17, "name": "Anna Berg", "born": "1970-01-31", "mail": "anna@example.org", "phone": None, "tags": ["a", "b"]}


class Patients(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value=None):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        if body:
            self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        if parts == ["patients"]:
            limit = int(urllib.parse.parse_qs(url.query).get("limit", ["2"])[0])
            self.answer(200, [PATIENT, PATIENT | {"phone": "0170 1"}][:limit])
        elif parts[0] == "patients" and len(parts) == 2 and parts[1].isdigit():
            self.answer(200, PATIENT | {"id": int(parts[1])})
        elif parts == ["visits"]:
            self.answer(200, [])
        else:
            self.answer(404, {"error": "nothing"})

    def do_POST(self):
        asked = json.loads(self.body())
        self.answer(202 if asked.get("later") else 201, {"id": 4711})

    def do_PUT(self):
        self.body()
        self.answer(204)


http.server.ThreadingHTTPServer(("", 9001), Patients).serve_forever()
