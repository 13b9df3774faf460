"""A workload that uses the package `spiffe` at the socket that its environment names, or at a target's `socket`."""

import os
import time

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import SpiffeId, TrustDomain, WorkloadApiClient

DOMAIN = TrustDomain("lab.example")


def x509(client):
    svid = client.fetch_x509_svid(timeout=20)
    return {"id": str(svid.spiffe_id), "chain": len(svid.cert_chain)}


def bundles(client):
    return {"roots": len(client.fetch_x509_bundles(timeout=20).get_bundle_for_trust_domain(DOMAIN).x509_authorities)}


def jwt(client):
    token = client.fetch_jwt_svid({"other"}, timeout=20)
    valid = client.validate_jwt_svid(token.token, "other", timeout=20)
    return {"id": str(token.spiffe_id), "audience": sorted(token.audience), "valid": str(valid.spiffe_id)}


def wrong_audience(client):
    token = client.fetch_jwt_svid({"other"}, timeout=20)
    return {"id": str(client.validate_jwt_svid(token.token, "somebody", timeout=20).spiffe_id)}


def foreign(client):
    other = SpiffeId("spiffe://lab.example/service/other")
    return {"id": str(client.fetch_jwt_svid({"x"}, subject=other, timeout=20).spiffe_id)}


def jwt_bundles(client):
    return {"keys": len(client.fetch_jwt_bundles(timeout=20).get_bundle_for_trust_domain(DOMAIN).jwt_authorities)}


def everything(target):
    client = open_(target)
    said = {}
    for call in (x509, bundles, jwt, jwt_bundles, wrong_audience, foreign):
        try:
            said[call.__name__] = call(client)
        except Exception as error:
            said[call.__name__] = {"error": str(error)}
    return said


def pushed(target):
    """Stays on the stream until two different SVIDs have come."""
    client = open_(target)
    seen = []
    handle = client.stream_x509_contexts(lambda context: seen.append(context.default_svid), lambda error: print(error, flush=True))
    issuers = lambda: [svid.cert_chain[1].public_bytes(Encoding.DER) for svid in seen]
    start = time.monotonic()
    while time.monotonic() - start < 30 and len(set(issuers())) < 2:
        time.sleep(0.05)
    handle.cancel()
    return {"messages": len(seen), "issuers": len(set(issuers())), "ids": sorted({str(svid.spiffe_id) for svid in seen})}


def open_(target):
    return WorkloadApiClient(socket_path="unix://" + target["socket"] if "socket" in target else os.environ["SPIFFE_ENDPOINT_SOCKET"])


def run(story, target):
    return globals()[story](target)
