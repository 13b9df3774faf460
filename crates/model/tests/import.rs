//! A first fence from a Compose file or from manifests: its services, its ports, its calls, each guess marked.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use ringfence_model::import::{self, ImportError};
use ringfence_model::{Fence, Protocol};

fn import(files: &[(&str, &str)]) -> (Fence, String) {
    let files: Vec<(String, String)> =
        files.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    let imported = import::from_texts(&files, "shop").expect("the files describe services");
    let fence = Fence::parse(vec![("ringfence.yaml", imported.text.as_str())])
        .unwrap_or_else(|e| panic!("{e}\n{}", imported.text));
    (fence, imported.text)
}

fn edges(fence: &Fence) -> BTreeSet<(&str, &str)> {
    fence.edges().map(|edge| (edge.caller.name.as_str(), edge.callee.name.as_str())).collect()
}

/// The folder of reference data: `RINGFENCE_GOLDEN`, which the test runner sets.
fn golden(folder: &str) -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test is told by its environment where the reference data lies"
    )]
    let root = std::env::var_os("RINGFENCE_GOLDEN");
    let path = root.map(|root| PathBuf::from(root).join(folder)).filter(|path| path.is_dir());
    if path.is_none() {
        // Past the capture of the test harness: what has not been checked is said.
        let _ = writeln!(
            std::io::stderr(),
            "ABSENT: {folder} under RINGFENCE_GOLDEN: its test has checked nothing"
        );
    }
    path
}

#[test]
fn the_online_boutique_gives_its_services_and_its_real_call_graph() {
    let Some(folder) = golden("online-boutique/kubernetes-manifests") else { return };
    let imported = import::from_path(&folder, "boutique").unwrap();
    let fence = Fence::parse(vec![("ringfence.yaml", imported.text.as_str())]).unwrap();
    let services: BTreeSet<&str> = fence.services.iter().map(|s| s.name.as_str()).collect();
    let expected = [
        "adservice",
        "cartservice",
        "checkoutservice",
        "currencyservice",
        "emailservice",
        "frontend",
        "loadgenerator",
        "paymentservice",
        "productcatalogservice",
        "recommendationservice",
        "redis-cart",
        "shippingservice",
    ];
    assert_eq!(services, BTreeSet::from(expected));
    let calls = BTreeSet::from([
        ("loadgenerator", "frontend"),
        ("frontend", "productcatalogservice"),
        ("frontend", "currencyservice"),
        ("frontend", "cartservice"),
        ("frontend", "recommendationservice"),
        ("frontend", "shippingservice"),
        ("frontend", "checkoutservice"),
        ("frontend", "adservice"),
        ("checkoutservice", "productcatalogservice"),
        ("checkoutservice", "shippingservice"),
        ("checkoutservice", "paymentservice"),
        ("checkoutservice", "emailservice"),
        ("checkoutservice", "currencyservice"),
        ("checkoutservice", "cartservice"),
        ("recommendationservice", "productcatalogservice"),
        ("cartservice", "redis-cart"),
    ]);
    assert_eq!(edges(&fence), calls);
    assert_eq!((imported.services, imported.calls), (12, 16));
    for line in imported.text.lines().filter(|line| line.starts_with("      - ")) {
        assert!(line.contains("# guessed"), "unmarked guess: {line}");
    }
    assert!(
        imported.text.contains(
            "# not among these files: SHOPPING_ASSISTANT_SERVICE_ADDR, shoppingassistantservice:80"
        )
    );
    let email = fence.service("emailservice").unwrap();
    assert_eq!((email.listen, email.port, email.protocol), (Some(8080), Some(5000), Protocol::Grpc));
    assert_eq!(fence.service("redis-cart").unwrap().protocol, Protocol::Tcp);
    let entrances: Vec<&str> =
        fence.services.iter().filter(|s| !s.routes.is_empty()).map(|s| s.name.as_str()).collect();
    assert_eq!(entrances, ["frontend"]);
    assert_eq!(fence.service("loadgenerator").unwrap().listen, None);
}

const COMPOSE: &str = r#"
x-common: &common
  restart: always
  environment: &env
    LOG: info
services:
  web:
    <<: *common
    build: ./web
    ports: ["127.0.0.1:8080:3000"]
    environment:
      <<: *env
      API_URL: http://api:4000/v1
      SESSION_SECRET: hunter2
      NOTE: "api is nice"
    depends_on: [api, mail]
  api:
    image: registry.example/shop/api:1.2
    environment:
      - DATABASE_URL=postgres://app:pw@db/shop
      - CACHE_HOST=cache
      - SMTP=smtp://smtp.example.net:587
      - DB_NAME=web
    command: api --search search:9200
  db: { image: "postgres:17" }
  cache: { image: redis }
  search: { image: "opensearch:2" }
  mail: { image: "mailer" }
"#;

#[test]
fn a_compose_file_gives_services_ports_and_calls() {
    let (fence, text) = import(&[("compose.yaml", COMPOSE)]);
    assert_eq!(
        edges(&fence),
        BTreeSet::from([("web", "api"), ("api", "db"), ("api", "cache"), ("api", "search")]),
        "{text}"
    );
    let listen = |name: &str| fence.service(name).unwrap().listen;
    assert_eq!(
        [listen("web"), listen("api"), listen("db"), listen("cache"), listen("search"), listen("mail")],
        [Some(3000), Some(4000), Some(5432), Some(6379), Some(9200), None]
    );
    assert_eq!(fence.service("db").unwrap().protocol, Protocol::Tcp);
    assert_eq!(fence.service("web").unwrap().routes[0].path, "/");
    assert_eq!(fence.service("web").unwrap().env().unwrap()["LOG"], "info");
    assert!(!text.contains("hunter2") && !text.contains(":pw@"), "secrets stay where they are");
    assert!(text.contains("# it waits for mail"));
    assert!(
        text.contains("# egress: [{ host: smtp.example.net, port: 587 }]"),
        "a way out is proposed, not opened"
    );
    assert!(fence.services.iter().all(|s| s.egress.is_empty()));
    assert!(text.contains("image registry.example/shop/api:1.2"));
}

#[test]
fn callers_know_the_name_of_the_service_object_not_of_the_deployment() {
    let manifests = "
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { STORE: 'store.prod.svc.cluster.local:80' }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: store-v2 }
spec:
  template:
    metadata: { labels: { app: store } }
    spec:
      containers: [{ name: c, image: store, ports: [{ name: web, containerPort: 8000 }] }]
---
apiVersion: v1
kind: Service
metadata: { name: store }
spec: { selector: { app: store }, ports: [{ port: 80, targetPort: web }] }
---
apiVersion: batch/v1
kind: CronJob
metadata: { name: report }
spec:
  jobTemplate: { spec: { template: { spec: { containers: [{ name: c, image: report, envFrom: [{ configMapRef: { name: settings } }] }] } } } }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop }
spec: { rules: [{ host: Shop.example, http: { paths: [{ path: /store/, backend: { service: { name: store } } }] } }] }
";
    let (fence, text) = import(&[("all.yaml", manifests)]);
    assert_eq!(edges(&fence), BTreeSet::from([("report", "store")]), "{text}");
    let store = fence.service("store").unwrap();
    assert_eq!(store.listen, Some(8000));
    assert_eq!(
        (store.routes[0].host.as_deref(), store.routes[0].path.as_str()),
        (Some("shop.example"), "/store")
    );
}

#[test]
fn hostile_names_and_values_stay_inside_their_lines() {
    let compose = "services:\n  \"a\\n  evil: {}\":\n    image: \"x\\n  evil: {}\"\n    environment: { \"K\\nx: y\": v, V: \"a\\\"\\nb\\x7f\" }\n  gateway: {}\n  A_b: {}\n  a-b: {}\n";
    let (fence, text) = import(&[("compose.yaml", compose)]);
    assert_eq!(fence.services.len(), 4, "{text}");
    assert!(fence.service("evil").is_none());
    assert_eq!(fence.services[0].env().unwrap()["V"], "a\"\nb\u{7f}");
    let names: BTreeSet<&str> = fence.services.iter().map(|s| s.name.as_str()).collect();
    assert!(
        names.contains("service-gateway") && names.contains("a-b") && names.contains("a-b-2"),
        "{names:?}"
    );
}

#[test]
fn aliases_that_would_grow_without_end_are_left_out_with_a_note() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = level - 1;
        let items = vec![format!("*a{before}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    bomb.push_str("services: { web: {} }\n");
    let error = import::from_texts(&[("compose.yaml".into(), bomb)], "t").unwrap_err();
    assert!(matches!(&error, ImportError::Nothing { .. }));
    assert!(error.to_string().contains("expand to more than is read"), "{error}");
}

#[test]
fn the_starter_is_a_fence() {
    for name in ["shop", "", "Ärger & Co", "1", &"x".repeat(300)] {
        let text = import::starter(name);
        let fence =
            Fence::parse(vec![("ringfence.yaml", text.as_str())]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(fence.warnings.is_empty());
    }
}
