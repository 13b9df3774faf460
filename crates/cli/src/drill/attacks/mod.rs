//! The drills. Each file is one surface; each drill is one entry here and one function there.

mod access;
mod calls;
mod dials;
mod edge;
mod files;
mod floods;
mod injection;
mod malformed;
mod mesh;
mod processes;
mod revoked;
mod theft;

use super::Drill;

/// All of them, in the order in which they run.
pub(super) static ALL: &[Drill] = &[
    Drill {
        name: "undeclared-call",
        tries: "from inside a service: calls another one that it does not declare",
        stops: "the sidecar, by the caller's identity, before anything is forwarded",
        reports: "a denied call with caller, callee, the line that is missing and the trace",
        run: calls::undeclared,
    },
    Drill {
        name: "forged-svid",
        tries: "dials the mesh as a declared caller, with a certificate signed by an authority of its own",
        stops: "the handshake: no root of the trust bundle signed it",
        reports: "a denied connection at the mesh listener that says so",
        run: mesh::forged,
    },
    Drill {
        name: "expired-svid",
        tries: "dials the mesh as a declared caller, with its real certificate a moment after its end",
        stops: "the handshake: the certificate has expired",
        reports: "a denied connection at the mesh listener that says so",
        run: mesh::expired,
    },
    Drill {
        name: "wrong-trust-domain",
        tries: "dials the mesh with a well-formed certificate of a trust domain that is none of ours",
        stops: "the handshake: there is no bundle for that trust domain",
        reports: "a denied connection at the mesh listener that says so",
        run: mesh::wrong_trust_domain,
    },
    Drill {
        name: "direct-dial",
        tries: "from inside a service: dials another one's port, the gateway's port and an undeclared port past the proxy",
        stops: "the service's own network: nothing of that is in it",
        reports: "a dial for each, with service, address and port",
        run: dials::direct,
    },
    Drill {
        name: "outside-dial",
        tries: "from inside a service: dials an address outside, and asks a name server outside (addresses for documentation)",
        stops: "the service's own network: it leads nowhere but to the sink",
        reports: "a dial for each, with service, address and port",
        run: dials::outside,
    },
    Drill {
        name: "data-directory",
        tries: "from inside a service: lists the data directory, opens keys and state, dials the control socket",
        stops: "the service's own root: an empty folder stands there",
        reports: "a tamper event that names the service",
        run: files::data_directory,
    },
    Drill {
        name: "neighbour",
        tries: "from inside a service: kills and traces PID 1, looks for every other process of this fence",
        stops: "the PID namespace, Landlock and the capabilities that the service does not have",
        reports: "a tamper event for the signal and one for the trace",
        run: processes::neighbour,
    },
    Drill {
        name: "smuggled-request",
        tries: "sends the gateway requests that two parsers read in two ways",
        stops: "the parser: what is ambiguous is refused, and the connection ends",
        reports: "a denied call for each, with the rule `framing`",
        run: edge::smuggled,
    },
    Drill {
        name: "spoofed-header",
        tries: "sends the gateway a request that brings its own identity headers",
        stops: "the gateway: headers that only Ringfence sets are not passed on",
        reports: "the call, with the rule `header.spoofed` and the names that were dropped",
        run: edge::spoofed,
    },
    Drill {
        name: "claimed-method",
        tries: "sends the gateway requests whose query claims another method than they have",
        stops: "the gateway: what frameworks would serve as another method than was judged is refused",
        reports: "a denied call for each, with the rule `method.override`",
        run: edge::claimed,
    },
    Drill {
        name: "sql-injection",
        tries: "sends a gateway SQL where data belongs: query, form, JSON, XML, multipart, cookie, compressed, in small pieces",
        stops: "the gateway: the rules of the firewall, before anything reaches the service",
        reports: "a denied call for each, with the rule",
        run: injection::sql,
    },
    Drill {
        name: "malformed-body",
        tries: "sends a gateway what the service's description does not have: fields, types, sizes, content types, parameters, methods, paths",
        stops: "the gateway: only what is described reaches the service",
        reports: "a denied call for each, with the rule",
        run: malformed::body,
    },
    Drill {
        name: "forged-token",
        tries: "shows a gateway tokens that its provider did not give for it: unsigned, by another key, for somebody else, past their end",
        stops: "the gateway: signature, kind, issuer, audience and time, by the keys of the provider",
        reports: "a denied call for each, with the rule",
        run: access::forged_token,
    },
    Drill {
        name: "replayed-dpop",
        tries: "shows a gateway a stolen token that is bound to a key: alone, with a proof that was used, with proofs for something else or by another key",
        stops: "the gateway: each proof counts once, for its request, its token and its key",
        reports: "a denied call for each, with the rule",
        run: access::replayed_dpop,
    },
    Drill {
        name: "stolen-token",
        tries: "has a transaction token that one service was given used by another, from outside, and after its end",
        stops: "the sidecar, which knows what its service was given; the gateway, where it is no credential",
        reports: "a denied call for each, with the rule",
        run: theft::stolen_token,
    },
    Drill {
        name: "revoked-session",
        tries: "goes on with a session, a token and an API key that were revoked: new requests, and a stream that is open",
        stops: "the gateway, within a second: what is new is refused, what is open is cut",
        reports: "a denied call for each, with the rule",
        run: revoked::revoked_session,
    },
    Drill {
        name: "rate-flood",
        tries: "asks a gateway far more than it may: as one user with many tokens, and with one wrong credential after the other",
        stops: "the gateway: each user has their share, and an address that fails again and again is slowed down",
        reports: "a denied call for each, with the rule",
        run: floods::rate_flood,
    },
];
