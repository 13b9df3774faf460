"""Two services that believe a transaction token by themselves, with joserfc and the keys that their sidecar publishes.

`resource.py portal` passes on what it is told to; `resource.py records` only answers.
"""

import http.client
import http.server
import json
import os
import sys
import urllib.request

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

DOMAIN = "clinic.example"
ALGORITHMS = ["EdDSA"]


def keys():
    with urllib.request.urlopen(os.environ["RINGFENCE_URL"] + "/jwks.json", timeout=60) as answer:
        return KeySet.import_key_set(json.load(answer))


def verified(token):
    """What a token says, if it holds here and now."""
    decoded = jwt.decode(token, keys(), algorithms=ALGORITHMS)
    if decoded.header["typ"] != "txntoken+jwt":
        raise ValueError("another kind of token")
    essential = {"essential": True}
    claims = jwt.JWTClaimsRegistry(
        aud={"essential": True, "value": DOMAIN}, exp=essential, iat=essential, sub=essential, txn=essential
    )
    claims.validate(decoded.claims)
    return decoded.claims


def altered(token):
    """The same with another user in it."""
    head, claims, signature = token.split(".")
    middle = len(claims) // 2
    other = "A" if claims[middle] != "A" else "B"
    return f"{head}.{claims[:middle]}{other}{claims[middle + 1:]}.{signature}"


class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        tokens = self.headers.get_all("txn-token") or []
        if sys.argv[1] == "portal" and self.path != "/own":
            passed = {"/records": tokens, "/forgets": [], "/alters": [altered(t) for t in tokens]}[self.path]
            return self.answer(*self.records(passed))
        if len(tokens) != 1:
            return self.answer(401, {"tokens": len(tokens)})
        try:
            claims = verified(tokens[0])
        except (JoseError, ValueError, KeyError) as error:
            return self.answer(401, {"error": repr(error)})
        try:
            verified(altered(tokens[0]))
            forged = "accepted"
        except (JoseError, ValueError) as error:
            forged = type(error).__name__
        user = self.headers.get("ringfence-user")
        return self.answer(200, {"claims": claims, "user": user, "forged": forged})

    def records(self, tokens):
        connection = http.client.HTTPConnection("records", timeout=60)
        connection.request("GET", "/", headers={"txn-token": tokens[0]} if tokens else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", 9000), Service).serve_forever()
