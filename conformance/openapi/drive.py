"""Schemathesis against a running gateway: what a description forbids does not come through, what it allows does, and nothing breaks.

    drive.py --binary RINGFENCE --folder SCRATCH [--examples N] [--seed N] DESCRIPTION...

Each description gets a gateway of its own, whose service answers 200 to everything: whatever is refused, the gateway refused. Prints each
failure and `schemathesis: passed/total`; ends with 1 if there is any that is not explained here.
"""

import argparse
import http.server
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

CHECKS = "not_a_server_error,negative_data_rejection,positive_data_acceptance,missing_required_header,unsupported_method"
PATIENCE = 120
# What ends otherwise on purpose, and why.
DIFFERENCES = {
    "Unsupported method TRACE returned 400": "a TRACE with a body is malformed (RFC 9110, section 9.3.8): the framing guard refuses it first",
}


class Service(http.server.BaseHTTPRequestHandler):
    """Says yes to everything."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        if self.headers.get("Transfer-Encoding"):
            while (size := int(self.rfile.readline(), 16)) > 0:
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"{}")

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_):
        pass


def free_port():
    """Below those that the kernel gives to connections: one of them cannot take it meanwhile."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def answers(port):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
    except urllib.error.HTTPError as answer:
        return answer.code != 503
    except OSError:
        return False
    return True


def ready(port, up, log):
    start, served = time.monotonic(), 0
    while time.monotonic() - start < PATIENCE:
        if up.poll() is not None:
            break
        # Until the fence is in force, nothing is there; it must be so in each thread.
        if answers(port):
            served += 1
            if served == 8:
                return
            continue
        served = 0
        time.sleep(0.1)
    with open(log) as said:
        sys.exit(f"the gateway does not serve:\n{said.read()}")


def base(description):
    """The path of the description's server."""
    with open(description) as text:
        found = re.search(r'"?url"?:\s*"?(?:https?://[^/"]+)?(/[^"}\s]*)?', text.read())
    return (found and found[1] or "").rstrip("/")


def run(description, options, upstream):
    name = os.path.basename(description)
    folder = os.path.join(options.folder, name.split(".")[0])
    # Not beside the fence itself, where it would be taken for a part of it.
    os.makedirs(os.path.join(folder, "openapi"))
    shutil.copy(description, os.path.join(folder, "openapi", name))
    port = free_port()
    with open(os.path.join(folder, "ringfence.yaml"), "w") as fence:
        fence.write(
            f"""fence: described
trust_domain: described.example
gateway: {{ listen: 127.0.0.1:{port}, tls: off }}
external:
  service:
    address: 127.0.0.1:{upstream}
    routes: [{{ path: / }}]
    openapi: {{ file: openapi/{name}, responses: off }}
"""
        )
    log = os.path.join(folder, "up.log")
    with open(log, "w") as out:
        up = subprocess.Popen([os.path.abspath(options.binary), "up", "."], cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        ready(port, up, log)
        command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", description]
        command += ["--url", f"http://127.0.0.1:{port}{base(description)}", "--checks", CHECKS, "--mode", "all"]
        command += ["--phases", "coverage,fuzzing", "--max-examples", str(options.examples), "--seed", str(options.seed)]
        command += ["--no-color", "--request-timeout", "60"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(20)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
    summary = re.search(r"Test cases:\n\s+(\d+) generated(?:, (\d+) passed)?(?:, (\d+) found)?", done.stdout)
    failures = re.findall(r"^_{4,} (.+?) _{4,}$(.*?)(?=^_{4,}|^={4,})", done.stdout, re.S | re.M)
    if not summary or int(summary[1]) == 0 or (done.returncode != 0 and not failures):
        sys.exit(f"schemathesis did not come to its end ({done.returncode}):\n{done.stdout}\n{done.stderr}")
    unexplained = 0
    for operation, told in failures:
        reasons = [reason for text, reason in DIFFERENCES.items() if text in told]
        if reasons and len(re.findall(r"^- ST", told, re.M)) == 1:
            print(f"differs  {name} {operation}: {reasons[0]}")
        else:
            unexplained += 1
            print(f"FAILED   {name} {operation}:{told.rstrip()}\n")
    total = int(summary[1])
    failed = max(len(failures), int(summary[3] or 0))
    return total - failed, total, unexplained + failed - len(failures)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("descriptions", nargs="+")
    options = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    passed = total = failed = 0
    for description in options.descriptions:
        good, all_of_them, bad = run(os.path.abspath(description), options, server.server_address[1])
        print(f"{os.path.basename(description)}: {good}/{all_of_them}", flush=True)
        passed, total, failed = passed + good, total + all_of_them, failed + bad
    print(f"schemathesis: {passed}/{total}")
    sys.exit(1 if failed else 0)


main()
