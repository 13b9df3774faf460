//! Attacks, limits and answers.

use ringfence_model::{Beyond, By, Excluded, Mode, Priority, WhenFull};

use crate::{CLINIC, at, codes, parse, with_portal};

/// A fence with these lines under `waf`.
fn with_waf(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "fence: t\ntrust_domain: t.example\nwaf:\n{indented}gateway: {{ listen: 127.0.0.1:1 }}\nservices:\n  a: {{ listen: 1, routes: [{{ path: / }}] }}\n"
    )
}

#[test]
fn attacks_are_looked_for_as_the_fence_says_and_with_the_known_defaults_otherwise() {
    let waf = parse(&with_waf("mode: block")).unwrap().waf.unwrap();
    assert_eq!((waf.mode, waf.crs, waf.paranoia, waf.inbound, waf.outbound), (Mode::Enforce, None, 1, 5, 4));
    assert_eq!((waf.inspect, waf.beyond, waf.responses), (128 << 10, Beyond::Reject, false));
    assert_eq!(at(&waf.position), "ringfence.yaml:3:1");
    let short = with_waf("").replace("waf:", "waf: observe");
    assert_eq!(parse(&short).unwrap().waf.unwrap().mode, Mode::Observe);
    assert_eq!(parse(&with_waf("")).unwrap().waf.unwrap().mode, Mode::Enforce, "`waf:` alone");
    assert_eq!(parse(CLINIC).unwrap().waf.unwrap().beyond, Beyond::Head, "nobody says anything");

    let fence = parse(include_str!("../data/everything.yaml")).unwrap();
    let waf = fence.waf.unwrap();
    assert_eq!(
        (waf.crs.as_deref(), waf.paranoia, waf.inbound, waf.responses),
        (Some("rules/crs"), 2, 7, true)
    );
    let [numbers, tag] = waf.exclude.as_slice() else { panic!("two exclusions") };
    assert_eq!(
        (&numbers.of, numbers.target.as_deref()),
        (&Excluded::Rules(vec![942_100, 942_110]), Some("ARGS:q"))
    );
    assert!(numbers.path.as_ref().unwrap().matches("/search") && numbers.reason == "free text search");
    assert_eq!((&tag.of, tag.target.as_deref()), (&Excluded::Tag("attack-sqli".into()), None));
    assert!(
        tag.path.as_ref().unwrap().matches("/notes/a/b") && at(&tag.position).starts_with("ringfence.yaml:")
    );
    let web = fence.services.iter().find(|s| s.name == "web").unwrap();
    let modes: Vec<Option<Mode>> = web.routes.iter().map(|route| route.waf).collect();
    assert_eq!(modes, [Some(Mode::Enforce), Some(Mode::Observe), None]);
    let openapi = web.openapi.as_ref().unwrap();
    assert_eq!((openapi.file.as_str(), openapi.responses), ("openapi/web.yaml", Mode::Observe));
    let legacy = fence.services.iter().find(|s| s.name == "legacy").unwrap().openapi.as_ref().unwrap();
    assert_eq!(
        (legacy.file.as_str(), legacy.mode, legacy.undocumented),
        ("openapi/legacy.json", Mode::Enforce, Mode::Enforce)
    );
}

#[test]
fn unless_somebody_says_otherwise_attacks_are_refused_and_long_bodies_pass() {
    let with = |routes: &str| parse(&with_portal(&format!("listen: 2\nroutes: [{routes}]"))).unwrap().waf;
    let waf = with("{ path: / }").unwrap();
    assert_eq!(
        (waf.mode, waf.paranoia, waf.crs.as_deref(), waf.beyond),
        (Mode::Enforce, 1, None, Beyond::Head)
    );
    assert_eq!(at(&waf.position), "ringfence.yaml:3:1", "who opens the door is who is inspected");
    assert_eq!(with("{ path: /, waf: off }, { path: /a, waf: observe }"), Some(waf));
    assert_eq!(with("{ path: /, waf: off }"), None, "nothing is looked into");
    assert_eq!(with(""), None, "nothing is reachable");
    let said = parse(&format!("{CLINIC}waf: {{ mode: off }}\n")).unwrap().waf.unwrap();
    assert_eq!(said.mode, Mode::Off);
}

#[test]
fn an_exclusion_says_what_why_and_until_when() {
    let mut wrong = Vec::new();
    let good = "rules: [942100], target: 'ARGS:q', path: /search, reason: prose, until: 9999-12-31";
    assert_eq!(codes(&with_waf(&format!("exclude: [{{ {good} }}]"))), Vec::<&str>::new());
    for (from, to, code) in [
        (", reason: prose", "", "missing-key"),
        (", until: 9999-12-31", "", "missing-key"),
        ("9999-12-31", "2027-02-30", "bad-value"),
        ("9999-12-31", "tomorrow", "bad-value"),
        ("rules: [942100], ", "", "missing-key"),
        ("[942100]", "[]", "empty"),
        ("[942100]", "[942100, 942100]", "duplicate"),
        ("[942100]", "[sqli]", "out-of-range"),
        ("[942100]", "942100", "wrong-type"),
        ("rules: [942100]", "rules: [942100], tag: attack-sqli", "conflict"),
        ("ARGS:q", "args:q", "bad-value"),
        ("ARGS:q", "ARGZ:q", "bad-value"),
        ("ARGS:q", "ARGS:", "bad-value"),
        ("/search", "search", "bad-value"),
        ("reason: prose", "reason: ''", "wrong-type"),
        ("rules:", "rule:", "unknown-key"),
    ] {
        let text = with_waf(&format!("exclude: [{{ {} }}]", good.replacen(from, to, 1)));
        if !codes(&text).contains(&code) {
            wrong.push((to, code, codes(&text)));
        }
    }
    for (lines, code) in [
        ("mode: on", "bad-value"),
        ("crs: /etc/crs", "bad-value"),
        ("paranoia: 5", "out-of-range"),
        ("threshold: { inbound: 0 }", "out-of-range"),
        ("body: { inspect: 1B }", "out-of-range"),
        ("body: { inspect: 1GiB }", "out-of-range"),
        ("body: { beyond: pass }", "bad-value"),
        ("responses: yes", "wrong-type"),
        ("rules: crs", "unknown-key"),
    ] {
        if codes(&with_waf(lines)) != [code] {
            wrong.push((lines, code, codes(&with_waf(lines))));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let help = parse(&with_waf(&format!("exclude: [{{ {} }}]", good.replace("ARGS", "args")))).unwrap_err();
    assert!(help.to_string().contains("did you mean `ARGS`?"), "{help}");
}

#[test]
fn an_exclusion_that_is_over_is_told_and_counts_no_more() {
    let text = with_waf(
        "exclude:\n  - { tag: a, reason: prose, until: 2020-01-31 }\n  - { tag: b, reason: prose, until: 9999-12-31 }",
    );
    let fence = parse(&text).unwrap();
    let [warning] = fence.warnings.as_slice() else { panic!("one warning: {:?}", fence.warnings) };
    assert_eq!((warning.code, at(&warning.position)), ("expired", "ringfence.yaml:5:7".to_owned()));
    let waf = fence.waf.unwrap();
    let last_second = waf.exclude[0].until.ends_at() - 1;
    assert_eq!(waf.exclusions(last_second).count(), 2);
    let left: Vec<_> = waf.exclusions(last_second + 1).map(|e| &e.of).collect();
    assert_eq!(left, [&Excluded::Tag("b".into())]);
}

#[test]
fn what_is_looked_for_where_nothing_comes_in_is_worth_a_warning() {
    let text = "fence: t\ntrust_domain: t.example\nwaf: {}\nservices:\n  a: { openapi: a.yaml }\n";
    let found: Vec<_> = parse(text).unwrap().warnings.iter().map(|w| (w.code, at(&w.position))).collect();
    assert_eq!(
        found,
        [("unused", "ringfence.yaml:3:1".to_owned()), ("unused", "ringfence.yaml:5:17".to_owned())]
    );
}

/// Text that is near to a fence: its words and signs in any order.
#[test]
fn a_limit_says_of_what_each_is_counted_and_how_much() {
    let fence = parse(&with_portal(
        "listen: 2\nlimit: [{ by: caller, concurrent: 5 }]\nroutes:\n  - path: /\n    priority: sheddable\n    cost: 3\n    limit:\n      - { by: address, rate: 100/1m, burst: 20, full: allow }\n      - { by: route, quota: 100000/1d, mode: observe }\ncalls: [{ service: patients, limit: [{ by: { claim: tenant }, rate: 1/500ms }] }]",
    ))
    .unwrap();
    assert!(fence.warnings.iter().all(|w| w.code != "never"), "{:?}", fence.warnings);
    let portal = fence.service("portal").unwrap();
    let route = &portal.routes[0];
    assert_eq!((route.priority, route.cost), (Some(Priority::Sheddable), 3));
    let [address, all] = route.limit.as_slice() else { panic!("two limits") };
    assert_eq!((&address.by, address.at_once(), address.full), (&By::Address, Some(20), WhenFull::Allow));
    assert_eq!(at(&address.position), "ringfence.yaml:14:13");
    assert_eq!(all.quota.unwrap().to_string(), "100000/1d");
    assert_eq!((all.mode, all.rate, all.full), (Mode::Observe, None, WhenFull::Deny));
    let tenant = &portal.calls[0].limit[0];
    assert_eq!(
        (&tenant.by, tenant.rate.unwrap().to_string()),
        (&By::Claim("tenant".into()), "1/500ms".into())
    );
    let gateway = |words: &str| {
        parse(
            &with_portal("listen: 2\nroutes: [{ path: / }]")
                .replace("127.0.0.1:1 }", &format!("127.0.0.1:1{words} }}")),
        )
    };
    let guards = gateway("").unwrap().gateway.unwrap().guards;
    assert_eq!(guards.sign_in.unwrap().to_string(), "60/1m");
    assert_eq!((guards.sign_in_all.unwrap().units, guards.failures.unwrap().units), (3000, 60));
    let guards = gateway(", sign_in: { address: 5/1m }, failures: off").unwrap().gateway.unwrap().guards;
    assert_eq!(
        (guards.sign_in.unwrap().units, guards.sign_in_all.unwrap().units, guards.failures),
        (5, 3000, None)
    );
    let guards = gateway(", sign_in: off").unwrap().gateway.unwrap().guards;
    assert_eq!((guards.sign_in, guards.sign_in_all), (None, None));
}

#[test]
fn a_limit_that_nobody_could_keep_or_that_never_counts_is_refused() {
    let route = |limit: &str| codes(&with_portal(&format!("listen: 2\nroutes: [{{ path: /, {limit} }}]")));
    for (limit, code) in [
        ("limit: [{ by: address }]", "empty"),
        ("limit: [{ rate: 1/1s }]", "missing-key"),
        ("limit: [{ by: adress, rate: 1/1s }]", "bad-value"),
        ("limit: [{ by: address, rate: 100 }]", "bad-value"),
        ("limit: [{ by: address, rate: 100/m }]", "bad-value"),
        ("limit: [{ by: address, rate: 0/1m }]", "bad-value"),
        ("limit: [{ by: address, rate: 1/0s }]", "bad-value"),
        ("limit: [{ by: address, rate: 10000001/1s }]", "out-of-range"),
        ("limit: [{ by: address, rate: 1/1h, burst: 1000000 }]", "out-of-range"),
        ("limit: [{ by: address, quota: 1/1s }]", "out-of-range"),
        ("limit: [{ by: address, quota: 300000000/1d }]", "out-of-range"),
        ("limit: [{ by: address, burst: 5, concurrent: 1 }]", "missing-key"),
        ("limit: [{ by: address, rate: 10/1s, cost: 11 }]", "never"),
        ("cost: 11, limit: [{ by: address, rate: 10/1s }]", "never"),
        ("limit: [{ by: address, rate: 10/1s, cost: 0 }]", "out-of-range"),
        ("limit: [{ by: caller, rate: 10/1s }]", "never"),
        ("limit: [{ by: { tenant: x }, rate: 10/1s }]", "unknown-key"),
        ("priority: low", "bad-value"),
        ("limit: [{ by: address, rate: 10/1s, window: 3 }]", "unknown-key"),
    ] {
        assert!(route(limit).contains(&code), "{limit}: {:?}", route(limit));
    }
    let many = ["{ by: address, rate: 1/1s }"; 7].join(", ");
    assert_eq!(route(&format!("limit: [{many}]")), ["too-many"]);
    let call = "listen: 2\nroutes: [{ path: / }]\ncalls: [{ service: patients, limit: [{ by: address, rate: 1/1s }] }]";
    assert_eq!(codes(&with_portal(call)), ["never"]);
    let tcp = "listen: 2\nprotocol: tcp\nroutes: [{ host: a.example, priority: normal }]\nlimit: [{ by: caller, rate: 1/1s }]";
    assert_eq!(codes(&with_portal(tcp)), ["conflict", "conflict"]);
    let open =
        parse(&with_portal("listen: 2\nroutes: [{ path: /, limit: [{ by: user, rate: 1/1s }] }]")).unwrap();
    assert!(open.warnings.iter().any(|w| w.code == "never"), "{:?}", open.warnings);
}

#[test]
fn responses_say_what_the_narrowest_place_says_and_nonsense_is_an_error_at_its_place() {
    let fence = parse(&with_portal(
        "listen: 2\nheaders: { frame: deny, hsts: 1d }\nhygiene: observe\nroutes:\n  - path: /\n    headers: { hsts: { subdomains: true } }\n    cors: { origins: [https://app.example], credentials: true }\n  - { path: /b, hygiene: off }",
    ))
    .unwrap();
    let routes = &fence.service("portal").unwrap().routes;
    let headers = routes[0].responses.headers.as_ref().unwrap();
    assert_eq!(headers.hsts.as_ref().unwrap().value(), Some("max-age=31536000; includeSubDomains"));
    assert_eq!(headers.frame.as_ref().unwrap().value(), Some("DENY"));
    assert_eq!(at(&headers.position), "ringfence.yaml:12:9");
    assert_eq!(
        (routes[0].responses.hygiene, routes[1].responses.hygiene),
        (Some(Mode::Observe), Some(Mode::Off))
    );
    let cors = routes[0].responses.cors.as_ref().unwrap();
    assert!(cors.credentials && cors.allows("https://app.example") && !cors.allows("https://b.example"));
    assert_eq!(cors.methods, ["GET", "HEAD", "POST"]);
    for (words, code) in [
        ("cors: { origins: any, credentials: true }", "conflict"),
        ("cors: { origins: [https://app.example/] }", "bad-value"),
        ("cors: { origins: [https://app.example:443] }", "bad-value"),
        ("cors: { methods: [GET] }", "missing-key"),
        ("cors: { origins: [], max_age: 1h }", "empty"),
        ("cors: { origins: any, max_age: 2d }", "out-of-range"),
        ("headers: { csp: \"a\\nb\" }", "bad-value"),
        ("headers: { csp: \"default-src x; report-uri /a\" }", "bad-value"),
        ("headers: { frame: allow }", "bad-value"),
        ("headers: { hsts: { preload: true } }", "conflict"),
        ("headers: { hsts: 9000d }", "out-of-range"),
        ("headers: { xss: on }", "unknown-key"),
        ("hygiene: strict", "bad-value"),
    ] {
        let errors =
            parse(&with_portal(&format!("listen: 2\nroutes:\n  - path: /\n    {words}"))).unwrap_err();
        let found: Vec<_> = errors.errors.iter().map(|e| (e.code, at(&e.position))).collect();
        assert!(found.iter().any(|(found, _)| *found == code), "{words}: {found:?}");
        assert!(found.iter().all(|(_, place)| place.starts_with("ringfence.yaml:10:")), "{words}: {found:?}");
    }
}

#[test]
fn a_way_says_how_long_and_how_often_and_nonsense_is_told_with_its_place() {
    let fence = parse(include_str!("../data/everything.yaml")).unwrap();
    let web = fence.services.iter().find(|s| s.name == "web").unwrap();
    let handling = &web.routes[1].handling;
    let retries = handling.retries.as_ref().unwrap();
    assert_eq!(handling.timeout.as_ref().unwrap().time.as_secs(), 90);
    assert_eq!((retries.most, retries.budget, retries.idempotent), (3, 10, true));
    assert_eq!(retries.grpc, [14, 8]);
    assert_eq!(
        handling.summary(),
        ", within 90s, tried again up to 3 times (budget 10%), 100 at once (50 wait up to 300ms), nothing for 2s after 7 failures in a row or 40% failures, 10% to legacy, with x-preview: 1 to legacy, FAULT: 5% of requests are held up for 2s, and answered with 503, told and not done"
    );
    let breaker = web.calls[0].handling.breaker.as_ref().unwrap();
    assert_eq!((breaker.bound.unwrap().pending, breaker.trip), (8, None));
    assert_eq!(web.calls[0].handling.timeout.as_ref().unwrap().time.as_secs(), 2);
    let with = |words: &str| with_portal(&format!("listen: 2\nroutes: [{{ path: /, {words} }}]"));
    let usual =
        parse(&with("retries: { }")).unwrap().services.into_iter().find(|s| !s.routes.is_empty()).unwrap();
    let usual = usual.routes[0].handling.retries.clone().unwrap();
    assert_eq!((usual.most, usual.budget, usual.idempotent, usual.grpc.len()), (2, 20, false, 0));
    for (words, code) in [
        ("timeout: 0s", "out-of-range"),
        ("timeout: 9ms", "out-of-range"),
        ("timeout: 25h", "out-of-range"),
        ("timeout: soon", "bad-value"),
        ("retries: { budget: 101 }", "out-of-range"),
        ("retries: { budget: 0 }", "out-of-range"),
        ("retries: { most: 6 }", "out-of-range"),
        ("retries: { most: 0 }", "out-of-range"),
        ("retries: { grpc: [] }", "empty"),
        ("retries: { grpc: [INVALID_ARGUMENT] }", "bad-value"),
        ("retries: { attempts: 3 }", "unknown-key"),
        ("retries: 3", "wrong-type"),
        ("breaker: { requests: 0 }", "out-of-range"),
        ("breaker: { failures: 0 }", "out-of-range"),
        ("breaker: { failures: never }", "out-of-range"),
        ("breaker: { rate: 101 }", "out-of-range"),
        ("breaker: { open: 5ms }", "out-of-range"),
        ("breaker: { open: 10m, longest: 5m }", "out-of-range"),
        ("breaker: { pending: 5 }", "conflict"),
        ("breaker: { queue: 1s }", "conflict"),
        ("breaker: { requests: 5, failures: off, open: 1s }", "conflict"),
        ("breaker: { failures: off }", "empty"),
        ("breaker: { connections: 5 }", "unknown-key"),
        ("breaker: true", "wrong-type"),
        ("fault: { abort: 503 }", "missing-key"),
        ("fault: { percent: 5 }", "empty"),
        ("fault: { abort: 200, percent: 5 }", "out-of-range"),
        ("fault: { delay: 61s, percent: 5 }", "out-of-range"),
        ("fault: { delay: 1s, percent: 0 }", "out-of-range"),
        ("fault: { delay: 1s, percent: 101 }", "out-of-range"),
        ("fault: { delay: 1s, percent: 1, mode: loud }", "bad-value"),
    ] {
        assert_eq!(codes(&with(words)), [code], "{words}");
        let errors = parse(&with(words)).unwrap_err().to_string();
        assert!(errors.contains("ringfence.yaml:"), "{errors}");
    }
    let usual =
        parse(&with("breaker: { }")).unwrap().services.into_iter().find(|s| !s.routes.is_empty()).unwrap();
    assert_eq!(usual.routes[0].handling.summary(), ", nothing for 10s after 5 failures in a row");
    let injected = parse(&with("fault: { abort: 503, percent: 5 }")).unwrap();
    let warning = injected.warnings.iter().find(|warning| warning.code == "fault").unwrap();
    assert!(warning.to_string().contains("5% of requests are answered with 503"), "{warning}");
    assert_eq!(warning.position.line, 8);
    let off = parse(&with("fault: { abort: 503, percent: 5, mode: off }")).unwrap();
    assert!(off.warnings.iter().all(|warning| warning.code != "fault"));
    let tcp = "fence: t\ntrust_domain: t.example\nservices:\n  a: { listen: 1, calls: [{ service: b, timeout: 1s }] }\n  b: { listen: 2, protocol: tcp }\n";
    assert_eq!(codes(tcp), ["conflict"]);
}

#[test]
fn a_split_leads_only_where_the_same_caller_may_go_by_the_same_words() {
    let with = |split: &str, more: &str, calls: &str| {
        format!(
            "fence: t
trust_domain: t.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
services:
  portal:
    listen: 1
    routes: [{{ path: /, split: {split} }}]
    calls: [{calls}]
  next: {{ listen: 2, routes: [{more}] }}
  stock: {{ listen: 3 }}
  other: {{ listen: 4 }}
  bytes: {{ listen: 5, protocol: tcp }}
"
        )
    };
    let good = "{ host: next.example, path: / }";
    let to = |what: &str| format!("{{ to: [{what}] }}");
    let fence = parse(&with("{ by: { cookie: id }, to: [{ service: next, weight: 10 }, { service: next, header: X-Canary, value: \"1\" }] }", good, "{ service: stock, split: { to: [{ service: other, weight: 5 }] } }, other")).unwrap();
    let portal = fence.services.iter().find(|s| s.name == "portal").unwrap();
    assert_eq!(portal.routes[0].handling.summary(), ", 10% to next, with x-canary: 1 to next");
    assert_eq!(portal.calls[0].handling.summary(), ", 5% to other");
    for (split, routes, code) in [
        (to("{ service: next, weight: 10 }"), "{ host: next.example, path: /a }", "undeclared"),
        (
            to("{ service: next, weight: 10 }"),
            "{ host: next.example, path: /, accept: [api_key] }",
            "conflict",
        ),
        (
            to("{ service: next, weight: 10 }"),
            "{ host: a.example, path: / }, { host: b.example, path: / }",
            "conflict",
        ),
        (to("{ service: stock, weight: 10 }"), good, "undeclared"),
        (to("{ service: portal, weight: 10 }"), good, "conflict"),
        (to("{ service: bytes, weight: 10 }"), good, "conflict"),
        (to("{ service: nobody, weight: 10 }"), good, "unknown-service"),
        (to("{ service: next, weight: 0 }"), good, "out-of-range"),
        (to("{ service: next, weight: 60 }, { service: next, weight: 41 }"), good, "out-of-range"),
        (to("{ service: next }"), good, "conflict"),
        (to("{ service: next, weight: 1, header: A, value: b }"), good, "conflict"),
        (to("{ service: next, header: Ringfence-User, value: b }"), good, "conflict"),
        (to("{ service: next, header: \"a b\", value: b }"), good, "bad-value"),
        ("{ to: [] }".to_owned(), good, "empty"),
        ("{ by: address }".to_owned(), good, "missing-key"),
        ("{ by: user, to: [{ service: next, weight: 1 }] }".to_owned(), good, "wrong-type"),
        ("{ by: address, to: [{ service: next, header: A, value: b }] }".to_owned(), good, "conflict"),
    ] {
        assert_eq!(codes(&with(&split, routes, "")), [code], "{split} {routes}");
    }
    for (calls, code) in [
        ("{ service: stock, split: { to: [{ service: other, weight: 5 }] } }", "undeclared"),
        ("{ service: stock, split: { to: [{ service: bytes, weight: 5 }] } }, bytes", "conflict"),
        ("{ service: bytes, split: { to: [{ service: stock, weight: 5 }] } }, stock", "conflict"),
        (
            "{ service: stock, split: { by: address, to: [{ service: other, weight: 5 }] } }, other",
            "conflict",
        ),
    ] {
        let found = codes(&with(&to("{ service: next, weight: 1 }"), good, calls));
        assert!(!found.is_empty() && found.iter().all(|found| *found == code), "{calls}: {found:?}");
    }
}

#[test]
fn a_service_elsewhere_has_one_address_or_several() {
    let with = |address: &str, more: &str| {
        format!(
            "fence: t\ntrust_domain: t.example\nservices:\n  a: {{ calls: [x] }}\nexternal:\n  x: {{ address: {address}, tls: off{more} }}\n"
        )
    };
    let fence = parse(&with("[127.0.0.1:80, \"[::1]:81\"]", "")).unwrap();
    let x = fence.services.iter().find(|s| s.name == "x").unwrap();
    let ringfence_model::Kind::External { address, more, .. } = &x.kind else { panic!("{x:?}") };
    assert_eq!((address.to_string(), more.len(), x.port), ("127.0.0.1:80".to_owned(), 1, Some(80)));
    for (address, more, code) in [
        ("[]", "", "empty"),
        ("[127.0.0.1:80, 127.0.0.1:80]", "", "duplicate"),
        ("[127.0.0.1:80, nowhere]", "", "bad-value"),
        ("[127.0.0.1:80, 127.0.0.1:81]", ", protocol: tcp", "conflict"),
    ] {
        assert_eq!(codes(&with(address, more)), [code], "{address}");
    }
}
