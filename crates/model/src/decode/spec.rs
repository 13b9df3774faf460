//! Which keys each object of the fence has: the one list that the decoder, its suggestions and the JSON Schema's test share.

/// An object of the fence: its name (in the JSON Schema's `$defs` as well) and its keys.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [&'static str],
    /// Words of other tools, and what stands for them here.
    pub(crate) foreign: &'static [(&'static str, &'static str)],
}

const fn object(name: &'static str, keys: &'static [&'static str]) -> Object {
    Object { name, keys, foreign: &[] }
}

pub(crate) static FENCE: Object = Object {
    name: "fence",
    keys: &[
        "fence",
        "trust_domain",
        "owner",
        "consent",
        "gateway",
        "providers",
        "policies",
        "entities",
        "waf",
        "metrics",
        "hosts",
        "services",
        "external",
        "limits",
    ],
    foreign: &[
        ("name", "the name of the whole stands under `fence`"),
        ("nodes", "the machines of a fence stand under `hosts`"),
        ("version", "a fence has no version: leave it out"),
        ("networks", "each service has a network of its own: leave it out"),
        ("volumes", "what a service may read and write stands in its `files`"),
        ("openapi", "the description of an API is a file of its own, which a service names: `openapi: FILE`"),
    ],
};
pub(crate) static GATEWAY: Object = object(
    "gateway",
    &["listen", "tls", "hosts", "at", "limit", "sign_in", "failures", "headers", "hygiene"],
);
pub(crate) static GATEWAY_TLS: Object = object("gateway_tls", &["cert", "key"]);
pub(crate) static SERVICE: Object = Object {
    name: "service",
    keys: &[
        "run", "listen", "port", "protocol", "env", "files", "ready", "routes", "accept", "require", "calls",
        "accepts", "egress", "openapi", "limit", "headers", "hygiene", "at",
    ],
    foreign: &[
        ("host", "the hosts that it runs on stand under `at`"),
        ("hosts", "the hosts that it runs on stand under `at`"),
        ("replicas", "a service runs once on each host that it names under `at`"),
        (
            "image",
            "images are not run: start the program with `run: [PROGRAM, …]`, or with `ringfence run NAME -- CMD`",
        ),
        ("command", "the command stands under `run`, as a list"),
        ("cmd", "the command stands under `run`, as a list"),
        ("environment", "environment variables stand under `env`, as a mapping"),
        ("ports", "the port inside the service's network stands under `listen`"),
        ("expose", "the port inside the service's network stands under `listen`"),
        ("depends_on", "whom it may call stands under `calls`; services start in that order"),
        ("volumes", "what it may read and write stands under `files`"),
        ("address", "a service that runs elsewhere stands under the top-level `external`"),
        ("healthcheck", "what shows that it is ready stands under `ready`"),
    ],
};
pub(crate) static EXTERNAL: Object = Object {
    name: "external",
    keys: &[
        "address", "tls", "port", "protocol", "routes", "accepts", "openapi", "limit", "headers", "hygiene",
    ],
    foreign: &[
        ("run", "a service that Ringfence starts stands under `services`"),
        ("calls", "what runs elsewhere is not fenced, so nothing would enforce its calls"),
        ("egress", "what runs elsewhere is not fenced, so nothing would enforce where it reaches"),
        ("listen", "where it listens stands in `address`, the port for its callers in `port`"),
        ("url", "where it listens stands in `address`, as `HOST:PORT`"),
    ],
};
pub(crate) static EXTERNAL_TLS: Object = object("external_tls", &["spiffe"]);
pub(crate) static FILE: Object = object("file", &["path", "write"]);
pub(crate) static READY: Object = object("ready", &["http"]);
pub(crate) static ROUTE: Object = object(
    "route",
    &[
        "host", "path", "accept", "require", "waf", "limit", "priority", "cost", "headers", "hygiene",
        "cors", "timeout", "retries", "breaker", "fault", "split",
    ],
);
pub(crate) static ACCEPT: Object = object("accept", &["login", "token", "certificate"]);
pub(crate) static REQUIRE: Object = object("require", &["scopes", "acr", "groups"]);
pub(crate) static PROVIDER: Object = Object {
    name: "provider",
    keys: &[
        "issuer",
        "audiences",
        "client",
        "login",
        "opaque",
        "algorithms",
        "claims",
        "bound",
        "ca",
        "allow_private",
    ],
    foreign: &[
        ("client_id", "who we are there stands under `client`, as its `id`"),
        ("client_secret", "a secret is in no fence: `client: { id: NAME, secret: { file: FILE } }`"),
        ("scopes", "the scopes of a sign-in stand under `login`"),
        ("jwks_uri", "where its keys are, its metadata below the issuer says"),
    ],
};
pub(crate) static CLIENT: Object = object("client", &["id", "secret", "key"]);
pub(crate) static SECRET: Object = object("secret", &["file", "env"]);
pub(crate) static KEY: Object = object("key", &["file"]);
pub(crate) static LOGIN: Object = object("login", &["scopes", "idle", "absolute"]);
pub(crate) static ENTITIES: Object = object("entities", &["file", "url", "every", "ca", "allow_private"]);
pub(crate) static HOST: Object = Object {
    name: "host_entry",
    keys: &["mesh", "control"],
    foreign: &[
        ("address", "where other hosts reach it stands under `mesh`, as IP:PORT"),
        ("listen", "where other hosts reach it stands under `mesh`, as IP:PORT"),
        ("services", "a service names its hosts: `at: [HOST]`"),
    ],
};
pub(crate) static METRICS: Object = object("metrics", &["listen"]);
pub(crate) static CLAIMS: Object = object("claims", &["user", "groups"]);
pub(crate) static CALL: Object = object(
    "call",
    &["service", "allow", "on_behalf", "limit", "timeout", "retries", "breaker", "fault", "split"],
);
pub(crate) static SPLIT: Object = Object {
    name: "split",
    keys: &["by", "to"],
    foreign: &[("weight", "how many of a hundred requests go to a service stands beside it, under `to`")],
};
pub(crate) static COHORT: Object = object("cohort", &["header", "cookie"]);
pub(crate) static BRANCH: Object = object("branch", &["service", "weight", "header", "value"]);
pub(crate) static FAULT: Object = Object {
    name: "fault",
    keys: &["delay", "abort", "percent", "mode"],
    foreign: &[
        ("status", "what requests are answered with stands under `abort`"),
        ("percentage", "how many of a hundred requests it happens to stands under `percent`"),
        ("latency", "how long requests are held up stands under `delay`"),
    ],
};
pub(crate) static BREAKER: Object = Object {
    name: "breaker",
    keys: &["requests", "pending", "queue", "failures", "rate", "open", "longest"],
    foreign: &[
        (
            "connections",
            "over HTTP/1 each request under way has a connection, so how many there are stands under `requests`",
        ),
        ("max_requests", "how many requests are under way at once stands under `requests`"),
        (
            "threshold",
            "how many failures in a row open it stands under `failures`, how many percent under `rate`",
        ),
        ("timeout", "how long it is open stands under `open`, how long a request waits under `queue`"),
    ],
};
pub(crate) static RETRIES: Object = Object {
    name: "retries",
    keys: &["most", "budget", "idempotent", "grpc"],
    foreign: &[
        ("attempts", "how often a request is tried again, its first try not counted, stands under `most`"),
        ("max", "how often a request is tried again stands under `most`"),
        ("percent", "how many tries are added, in percent, stands under `budget`"),
        ("on", "what is tried again follows from the method; gRPC statuses that are safe stand under `grpc`"),
    ],
};
pub(crate) static LIMIT: Object = Object {
    name: "limit",
    keys: &["by", "rate", "burst", "quota", "concurrent", "cost", "mode", "full"],
    foreign: &[
        ("key", "of what each is counted stands under `by`"),
        ("per", "the time stands in the rate: `rate: 100/1m`"),
        ("window", "the time stands in the rate: `rate: 100/1m`"),
        ("requests", "how many per time stands under `rate`: `rate: 100/1m`"),
        ("claim", "a claim stands under `by`: `by: { claim: tenant }`"),
    ],
};
pub(crate) static LIMIT_CLAIM: Object = object("limit_claim", &["claim"]);
pub(crate) static SIGN_IN: Object = object("sign_in", &["address", "all"]);
pub(crate) static ALLOW: Object = object("allow", &["methods", "paths"]);
pub(crate) static EGRESS: Object = object("egress", &["host", "port", "tls", "allow_private"]);
pub(crate) static WAF: Object = Object {
    name: "waf",
    keys: &["mode", "crs", "paranoia", "threshold", "body", "responses", "exclude"],
    foreign: &[
        ("rules", "the folder of the OWASP Core Rule Set stands under `crs`"),
        ("exclusions", "what is not looked for stands under `exclude`"),
        ("anomaly_threshold", "the scores stand under `threshold`: `{ inbound: 5, outbound: 4 }`"),
        ("paranoia_level", "the level stands under `paranoia`"),
    ],
};
pub(crate) static WAF_THRESHOLD: Object = object("waf_threshold", &["inbound", "outbound"]);
pub(crate) static WAF_BODY: Object = object("waf_body", &["inspect", "beyond"]);
pub(crate) static WAF_EXCLUSION: Object = Object {
    name: "waf_exclusion",
    keys: &["rules", "tag", "target", "path", "reason", "until"],
    foreign: &[
        ("rule", "the numbers are a list: `rules: [942100]`"),
        ("id", "the numbers stand under `rules`: `rules: [942100]`"),
        ("tags", "one exclusion has one `tag`"),
        ("expires", "the last day stands under `until`"),
    ],
};
pub(crate) static OPENAPI: Object = object("openapi", &["file", "mode", "responses", "undocumented"]);
pub(crate) static HEADERS: Object =
    object("headers", &["hsts", "csp", "csp_report_only", "csp_reports", "frame", "nosniff", "referrer"]);
pub(crate) static HSTS: Object = object("hsts", &["max_age", "subdomains", "preload"]);
pub(crate) static CORS: Object =
    object("cors", &["origins", "methods", "headers", "expose", "credentials", "max_age"]);
pub(crate) static LIMITS: Object = object(
    "limits",
    &[
        "header_bytes",
        "headers",
        "body",
        "idle",
        "header_time",
        "request_time",
        "connections",
        "connections_per_address",
        "handshakes",
        "handshakes_per_address",
        "handshake_time",
        "streams",
        "drain",
        "limit_memory",
        "queue",
    ],
);

/// All of them.
#[cfg(test)]
pub(crate) static OBJECTS: [&Object; 41] = [
    &FENCE,
    &GATEWAY,
    &GATEWAY_TLS,
    &SERVICE,
    &EXTERNAL,
    &EXTERNAL_TLS,
    &FILE,
    &READY,
    &ROUTE,
    &ACCEPT,
    &REQUIRE,
    &PROVIDER,
    &CLIENT,
    &SECRET,
    &KEY,
    &LOGIN,
    &ENTITIES,
    &HOST,
    &METRICS,
    &CLAIMS,
    &CALL,
    &ALLOW,
    &EGRESS,
    &WAF,
    &WAF_THRESHOLD,
    &WAF_BODY,
    &WAF_EXCLUSION,
    &OPENAPI,
    &LIMIT,
    &RETRIES,
    &BREAKER,
    &FAULT,
    &SPLIT,
    &COHORT,
    &BRANCH,
    &LIMIT_CLAIM,
    &SIGN_IN,
    &HEADERS,
    &HSTS,
    &CORS,
    &LIMITS,
];
