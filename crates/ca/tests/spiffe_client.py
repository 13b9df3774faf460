"""A workload that uses the package `spiffe`: prints one line per call, as JSON, and what went wrong instead."""

import json
import sys

from spiffe import SpiffeId, TrustDomain, WorkloadApiClient

client = WorkloadApiClient(socket_path="unix://" + sys.argv[1])
domain = TrustDomain("clinic.example")


def x509():
    svid = client.fetch_x509_svid(timeout=60)
    return {"id": str(svid.spiffe_id), "chain": len(svid.cert_chain), "serial": "%x" % svid.leaf.serial_number}


def bundles():
    return {"roots": len(client.fetch_x509_bundles(timeout=60).get_bundle_for_trust_domain(domain).x509_authorities)}


def jwt():
    svid = client.fetch_jwt_svid({"billing", "mailer"}, timeout=60)
    return {"id": str(svid.spiffe_id), "audience": sorted(svid.audience)}


def validate():
    token = client.fetch_jwt_svid({"billing"}, timeout=60).token
    svid = client.validate_jwt_svid(token, "billing", timeout=60)
    return {"id": str(svid.spiffe_id)}


def foreign():
    other = SpiffeId("spiffe://clinic.example/service/billing")
    return {"id": str(client.fetch_jwt_svid({"billing"}, subject=other, timeout=60).spiffe_id)}


def jwt_bundles():
    return {"keys": len(client.fetch_jwt_bundles(timeout=60).get_bundle_for_trust_domain(domain).jwt_authorities)}


for call in (x509, bundles, jwt, validate, foreign, jwt_bundles):
    try:
        print(json.dumps({call.__name__: call()}), flush=True)
    except Exception as error:
        print(json.dumps({call.__name__: {"error": str(error)}}), flush=True)
