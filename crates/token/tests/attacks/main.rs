//! Attacks on tokens, each by its name: the list of RFC 8725, of what tools for breaking JWTs try, and of past advisories.
//!
//! Each attack stands beside an honest twin that differs in nothing else and is accepted: an attack that is refused for
//! another reason than the one that it is about would prove nothing.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod claims;
mod forge;
mod header;
mod key;
mod kinds;
mod possession;
mod structure;

/// One attack: its name, and what our door said to it.
struct Attack {
    name: String,
    verdict: Result<(), String>,
}

fn attack<T, E: std::fmt::Display>(name: impl Into<String>, verdict: Result<T, E>) -> Attack {
    Attack { name: name.into(), verdict: verdict.map(drop).map_err(|e| e.to_string()) }
}

fn all() -> Vec<(&'static str, Vec<Attack>)> {
    vec![
        ("algorithm and header", header::attacks()),
        ("keys", key::attacks()),
        ("claims", claims::attacks()),
        ("kinds", kinds::attacks()),
        ("structure", structure::attacks()),
        ("possession", possession::attacks()),
    ]
}

#[test]
fn every_attack_is_refused() {
    let (mut count, mut accepted) = (0, Vec::new());
    let mut names = std::collections::BTreeSet::new();
    for (area, attacks) in all() {
        println!("{area}");
        for Attack { name, verdict } in attacks {
            count += 1;
            assert!(names.insert(name.clone()), "two attacks are called `{name}`");
            match verdict {
                Err(why) => println!("  {name}: {why}"),
                Ok(()) => accepted.push(name),
            }
        }
    }
    println!("{count} attacks");
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
    assert!(count >= 120, "only {count} attacks");
}
