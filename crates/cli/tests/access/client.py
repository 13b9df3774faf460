"""Authlib as a client: `python3 client.py`, with the same jobs as clients.mjs on standard input and the same answer."""

import json
import re
import sys
import warnings

import requests

warnings.simplefilter("ignore")
from authlib.common.security import generate_token  # noqa: E402
from authlib.integrations.requests_client import OAuth2Session  # noqa: E402

REDIRECT = "https://app.clinic.example/callback"
job = json.load(sys.stdin)
verify = job["tls_file"]
session = OAuth2Session(
    job["client"]["id"],
    job["client"]["secret"],
    scope=job["scope"],
    redirect_uri=REDIRECT,
    code_challenge_method="S256",
    token_endpoint_auth_method="client_secret_basic",
)
# Nothing of the environment counts: what is trusted is in the job.
session.verify, session.trust_env = verify, False
discovered = session.get(
    f"{job['issuer']}/.well-known/openid-configuration", timeout=90, withhold_token=True
).json()


def browse(url, user):
    """Signs `user` in as a browser without scripts would, and stops where the provider sends it back to."""
    browser = requests.Session()
    browser.verify, browser.trust_env = verify, False
    method, data = "GET", None
    for _ in range(20):
        answer = browser.request(method, url, data=data, allow_redirects=False, timeout=90)
        method, data = "GET", None
        if "location" in answer.headers:
            url = requests.compat.urljoin(url, answer.headers["location"])
            if url.startswith(REDIRECT):
                return url
        else:
            assert re.search('name="login"', answer.text), f"{answer.status_code} at {url}: {answer.text[:300]}"
            method, data = "POST", {"login": user}
    raise RuntimeError("the sign-in goes round in circles")


if job["flow"] == "code":
    verifier = generate_token(48)
    url, state = session.create_authorization_url(discovered["authorization_endpoint"], code_verifier=verifier)
    back = browse(url, job["user"])
    token = session.fetch_token(
        discovered["token_endpoint"], authorization_response=back, state=state, code_verifier=verifier
    )
else:
    token = session.fetch_token(discovered["token_endpoint"], grant_type="client_credentials")
before = []
for _ in range(job.get("refresh", 0)):
    before.append(token["access_token"])
    token = session.refresh_token(discovered["token_endpoint"], refresh_token=token["refresh_token"])
calls = []
for call in job.get("calls", []):
    answer = session.request(call.get("method", "GET"), call["url"], timeout=90)
    calls.append({"status": answer.status_code, "body": answer.text})
print(json.dumps({"token": token["access_token"], "kind": token["token_type"], "before": before, "calls": calls}))
