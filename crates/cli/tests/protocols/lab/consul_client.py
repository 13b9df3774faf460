"""A service that uses the package `consul` (py-consul), as if an agent of Consul were beside it."""

import threading
import time

import consul


def refused(call):
    """What a call is refused with."""
    try:
        call()
    except consul.ConsulException as error:
        return str(error)
    return None


def discovery(agent):
    _, services = agent.catalog.services()
    _, nodes = agent.health.service("other", passing=True)
    _, hidden = agent.health.service("hidden")
    _, nobody = agent.health.service("nobody")
    service = nodes[0]["Service"]
    return {
        "services": sorted(services),
        "other": [service["Service"], service["Address"], service["Port"]],
        "hidden": hidden,
        "nobody": nobody,
        "leader": bool(agent.status.leader()),
    }


def registration(agent):
    check = consul.Check.ttl("30s")
    agent.agent.service.register("agent", service_id="agent", port=9100, tags=["blue"], check=check)
    agent.agent.check.ttl_pass("service:agent")
    _, found = agent.health.service("agent", passing=True)
    said = {"tags": found[0]["Service"]["Tags"], "passing": len(found)}
    agent.agent.check.ttl_fail("service:agent")
    _, failing = agent.health.service("agent", passing=True)
    said["failing"] = len(failing)
    agent.agent.check.ttl_pass("service:agent")
    said["hijack"] = refused(lambda: agent.agent.service.register("other", service_id="other", port=9101))
    agent.agent.service.deregister("agent")
    _, gone = agent.catalog.service("agent")
    said["after"] = gone[0]["ServiceTags"]
    return said


def waiting(agent):
    """A blocking query comes back when something changes, and not before."""
    index, _ = agent.catalog.service("agent")
    came = {}

    def wait():
        came["index"], came["found"] = agent.catalog.service("agent", index=index, wait="60s")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(1)
    early = bool(came)
    consul.Consul(host="ringfence.internal").agent.service.register("agent", service_id="agent", port=9100, tags=["green"])
    thread.join(60)
    return {"early": early, "newer": came["index"] != index, "tags": came["found"][0]["ServiceTags"]}


def run(story, target):
    agent = consul.Consul(host="ringfence.internal")
    return {part.__name__: part(agent) for part in (discovery, registration, waiting)}
