"""The clinic's patients, as JSON, in Python's standard library: any language will do behind the fence.

    GET  /patients              all patients, without health data
    GET  /patients/ID/contact   how one is called and reached, for those who need no more
    GET  /patients/ID           one patient, health data included
    POST /lab/results           a laboratory's result: {"patient", "test", "value"}

The people are synthetic. The service calls nobody; but for results it is only ever read.
"""

import json
import os
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PORT = 9001
CONNECTIONS = 64  # threads at once; more callers wait in the listen queue
IDLE_SECONDS = 30  # for a caller that sends nothing, or half a head
DRAIN_SECONDS = 0.2  # for answers under way when told to stop; each takes far less


def patient(number, name, born, blood_group, conditions, allergies):
    mail = name.lower().replace(" ", ".")
    return {
        "id": f"p-{number}",
        "name": name,
        "born": born,
        "email": f"{mail}@patients.example",
        "blood_group": blood_group,
        "conditions": conditions,
        "allergies": allergies,
        "results": [],
    }


PATIENTS = {
    record["id"]: record
    for record in [
        patient(1001, "Alma Birch", "1958-03-14", "A+", ["hypertension"], ["penicillin"]),
        patient(1002, "Bruno Cedar", "1971-11-02", "0-", ["type 2 diabetes", "retinopathy"], []),
        patient(1003, "Chiara Elm", "1989-07-21", "B+", ["asthma"], ["pollen", "aspirin"]),
        patient(1004, "Dario Fir", "2016-01-30", "AB+", [], ["peanuts"]),
        patient(1005, "Edith Hazel", "1944-09-09", "A-", ["atrial fibrillation", "arthrosis"], []),
        patient(1006, "Farid Juniper", "1996-05-17", "0+", ["migraine"], []),
        patient(1007, "Greta Larch", "1983-12-24", "B-", ["pregnancy, week 31"], ["latex"]),
        patient(1008, "Hugo Maple", "1967-08-05", "A+", ["depression"], []),
    ]
}
LISTED = ("id", "name", "born")
CONTACT = ("id", "name", "email")
RESULT_BYTES = 1024
RESULTS = 100  # of one patient; older ones go
LOCK = threading.Lock()


class Patients(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self):
        path = urlsplit(self.path).path
        if "content-length" in self.headers or "transfer-encoding" in self.headers:
            return self.problem(400, "a GET has no body here")
        if path == "/patients":
            return self.answer(200, [{key: p[key] for key in LISTED} for p in PATIENTS.values()])
        if path == "/health":
            return self.answer(200, {"status": "ok"})
        one = re.fullmatch(r"/patients/(p-[0-9]{1,8})(/contact)?", path)
        if one and one[1] in PATIENTS:
            record = PATIENTS[one[1]]
            return self.answer(200, {key: record[key] for key in CONTACT} if one[2] else record)
        return self.problem(404, "no such patient" if path.startswith("/patients/") else "no such page")

    do_HEAD = do_GET

    def do_POST(self):
        if urlsplit(self.path).path != "/lab/results":
            return self.refuse()
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,4}", length) or int(length) > RESULT_BYTES:
            return self.problem(413, f"a result has at most {RESULT_BYTES} bytes, said in Content-Length")
        try:
            result = json.loads(self.rfile.read(int(length)))
            patient, test, value = (result[key] for key in ("patient", "test", "value"))
        except (ValueError, KeyError, TypeError):
            return self.problem(422, "a result is JSON with patient, test and value")
        line = re.compile(r"[^\x00-\x1f\x7f]{1,80}")
        if not all(isinstance(text, str) and line.fullmatch(text) for text in (patient, test, value)):
            return self.problem(422, "patient, test and value are one line each, at most 80 characters")
        if patient not in PATIENTS:
            return self.problem(404, "no such patient")
        # Who sent it stands in the log; Ringfence says it, whatever the sender claims.
        print(f"result for {patient} from {self.headers.get('Ringfence-User', '-')}", flush=True)
        with LOCK:
            results = PATIENTS[patient]["results"]
            PATIENTS[patient]["results"] = [*results, {"test": test, "value": value}][-RESULTS:]
        return self.answer(201, {"patient": patient, "test": test, "value": value})

    def refuse(self):
        self.problem(405, "patients are only read here", {"Allow": "GET, HEAD"})

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = refuse

    def problem(self, status, detail, headers=None):
        # The body of the request, if any, was not read: the connection ends with the answer.
        self.close_connection = True
        headers = {"Connection": "close", **(headers or {})}
        self.answer(status, {"status": status, "detail": detail}, "application/problem+json", headers)

    def answer(self, status, value, kind="application/json", headers=None):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, content in (headers or {}).items():
            self.send_header(name, content)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self):
        return "clinic"

    def log_request(self, code="-", size="-"):
        # A request line that could not be read leaves neither path nor headers.
        path = re.sub(r"[^!-~]", "?", getattr(self, "path", None) or "-")[:200]
        traceparent = getattr(self, "headers", {}).get("traceparent", "")
        trace = re.match(r"[0-9a-f]{2}-([0-9a-f]{32})-", traceparent)
        print(f"{self.command or '-'} {path} {int(code)} trace={trace[1] if trace else '-'}", flush=True)

    def log_message(self, form, *args):
        print(re.sub(r"[^ -~]", "?", form % args)[:200], file=sys.stderr, flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address):
        super().__init__(address, Patients)
        self.slots = threading.BoundedSemaphore(CONNECTIONS)
        self.stopping = False

    def process_request(self, request, client_address):
        while not self.slots.acquire(timeout=0.5):
            if self.stopping:
                return self.shutdown_request(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request, client_address):
        reason = sys.exc_info()[1]
        if not isinstance(reason, ConnectionError):
            print(f"a request failed: {type(reason).__name__}", file=sys.stderr, flush=True)


def main():
    host, _, port = os.environ.get("CLINIC_LISTEN", f"0.0.0.0:{PORT}").rpartition(":")
    server = Server((host, int(port)))

    def stop(*_):
        server.stopping = True
        # shutdown() waits for the loop that this signal interrupts, so it runs beside it.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"patients listens on {host}:{server.server_address[1]}", flush=True)
    server.serve_forever(poll_interval=0.2)
    server.socket.close()
    time.sleep(DRAIN_SECONDS)  # idle connections are daemon threads and end with the process


if __name__ == "__main__":
    main()
