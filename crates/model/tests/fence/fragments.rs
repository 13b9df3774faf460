//! A fence of several files.

use ringfence_model::{Diagnostics, Fence};

use crate::at;

fn fragments(accepts: &str) -> Result<Fence, Diagnostics> {
    let a = "fence: t\ntrust_domain: t.example\nconsent: required\nowner: team-a\nservices:\n  a: { listen: 1, calls: [b, local] }\n  local: { listen: 3 }\n";
    let b = format!("owner: team-b\nservices:\n  b: {{ listen: 2{accepts} }}\n");
    Fence::parse(vec![("a.yaml", a.to_owned()), ("b.yaml", b)])
}

#[test]
fn with_consent_an_edge_into_another_fragment_waits_until_it_is_accepted() {
    let fence = fragments("").unwrap();
    let edges: Vec<&str> = fence.edges().map(|edge| edge.callee.name.as_str()).collect();
    assert_eq!(edges, ["local"], "inside a fragment nobody has to be asked");
    assert_eq!(fence.service("a").unwrap().proposed[0].service, "b");
    let warning = fence.warnings.iter().find(|w| w.code == "not-accepted").unwrap();
    assert_eq!(at(&warning.position), "a.yaml:6:27");
    let missing = fence.why("a", "b").unwrap().missing.unwrap();
    assert_eq!(
        (missing.line.as_str(), at(&missing.position.unwrap())),
        ("accepts: [a]", "b.yaml:3:3".into())
    );
    let fence = fragments(", accepts: [a]").unwrap();
    assert_eq!(fence.edges().count(), 2);
    assert!(fence.why("a", "b").unwrap().allowed);
}

#[test]
fn fragments_say_what_holds_for_all_once_and_name_their_owners() {
    let one = "fence: t\ntrust_domain: t.example\nowner: a\nservices: { a: {} }\n";
    let two = "trust_domain: u.example\nservices: { a: {} }\n";
    let diagnostics = Fence::parse(vec![("1.yaml", one), ("2.yaml", two)]).unwrap_err();
    let found: Vec<(String, &str)> = diagnostics.errors.iter().map(|e| (at(&e.position), e.code)).collect();
    assert_eq!(
        found,
        [
            ("2.yaml:1:1".into(), "missing-key"),
            ("2.yaml:1:1".into(), "duplicate"),
            ("2.yaml:2:13".into(), "duplicate")
        ]
    );
    assert_eq!(at(&diagnostics.errors[1].related[0].position), "1.yaml:2:1");
}

#[test]
fn a_folder_is_one_file_or_its_fragments() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert_eq!(Fence::load(folder.path()).unwrap_err().errors[0].code, "not-found");
    write("ringfence.yaml", "fence: t\ntrust_domain: t.example\nservices: { a: { listen: 1 } }\n");
    write("compose.yaml", "services: { a: { image: x } }\n");
    let fence = Fence::load(folder.path()).unwrap();
    assert_eq!((fence.files.len(), fence.folder.as_path()), (1, folder.path()));
    assert_eq!(at(&fence.service("a").unwrap().position), "ringfence.yaml:3:13");
    let fence = Fence::load(&folder.path().join("ringfence.yaml")).unwrap();
    assert_eq!((fence.files[0].name.as_ref(), fence.folder.as_path()), ("ringfence.yaml", folder.path()));
    std::fs::remove_file(folder.path().join("compose.yaml")).unwrap();
    write("ringfence.yaml", "fence: t\ntrust_domain: t.example\nowner: a\nservices: { a: { listen: 1 } }\n");
    write("team.yaml", "owner: b\nservices: { b: { calls: [a] } }\n");
    write("late.yml", "owner: c\nservices: { c: {} }\n");
    let fence = Fence::load(folder.path()).unwrap();
    assert_eq!(fence.files.iter().map(|f| f.owner.as_deref()).collect::<Vec<_>>(), [Some("a"), Some("b")]);
    assert_eq!((fence.edges().count(), fence.warnings[0].code), (1, "not-read"));
    assert!(matches!(Fence::load(&folder.path().join("none")), Err(e) if e.errors[0].code == "not-found"));
}

#[test]
fn a_description_of_an_api_beside_fragments_is_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("api.yaml", "openapi: 3.1.0\ninfo: { title: a, version: '1' }\npaths: {}\n");
    assert_eq!(Fence::load(folder.path()).unwrap_err().errors[0].code, "not-found");
    write(
        "ringfence.yaml",
        "fence: t\ntrust_domain: t.example\nowner: a\nservices: { a: { listen: 1, openapi: api.yaml } }\n",
    );
    let fence = Fence::load(folder.path()).unwrap();
    assert_eq!(fence.files.len(), 1);
    assert!(fence.warnings.iter().all(|warning| warning.code != "not-read"), "{:?}", fence.warnings);
    write("old.yaml", "swagger: '2.0'\npaths: {}\n");
    let fence = Fence::load(folder.path()).unwrap();
    let warning = fence.warnings.iter().find(|warning| warning.code == "not-read").unwrap();
    assert_eq!(
        (at(&warning.position), warning.message.contains("description")),
        ("old.yaml:1:1".into(), true)
    );
    // What says something of both is told, and not left out.
    write("old.yaml", "owner: b\nlimits: { connections: 5 }\nopenapi: 3.1.0\n");
    let error = &Fence::load(folder.path()).unwrap_err().errors[0];
    assert_eq!((at(&error.position), error.code), ("old.yaml:3:1".into(), "unknown-key"));
    assert!(error.help.as_deref().is_some_and(|help| help.contains("which a service names")), "{error:?}");
    // Nor is what it says in a second document, or behind what is read of a file.
    write("old.yaml", "openapi: 3.1.0\npaths: {}\n---\nowner: b\nlimits: { connections: 5 }\n");
    assert!(Fence::load(folder.path()).unwrap_err().errors[0].message.contains("one document"));
    let long = format!("openapi: 3.1.0\npaths: {{}}\n{}\nowner: b\n", "#\n".repeat(600_000));
    write("old.yaml", &long);
    assert!(!Fence::load(folder.path()).unwrap_err().errors.is_empty());
}
