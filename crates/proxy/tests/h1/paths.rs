//! The one form of a path.

use proptest::prelude::*;
use ringfence_proxy::h1::Refusal;
use ringfence_proxy::normalize::{Oddities, path};
use std::borrow::Cow;

const ALL: Oddities = Oddities::ENCODED_SLASH.with(Oddities::PARAMETER).with(Oddities::DOUBLE_ENCODING);

#[test]
fn a_path_has_one_form() {
    for (raw, normal) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/%61", "/a"),
        ("/%7Euser", "/~user"),
        ("/%2E%2e/..", "above"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a/b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/.", "/"),
        ("//", "/"),
        ("//a///b//", "/a/b/"),
        ("/a//../b", "/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a..", "/a.."),
        ("/%3a%40%21", "/%3A%40%21"),
        ("/a b", "control"),
        ("/a%20b", "/a%20b"),
        ("/\"<>[]^`{|}", "/%22%3C%3E%5B%5D%5E%60%7B%7C%7D"),
        ("/%e4%bd%a0", "/%E4%BD%A0"),
        ("/%F0%9F%98%80", "/%F0%9F%98%80"),
        ("/100%25", "/100%25"),
        ("/100%25zz", "/100%25zz"),
        ("/!$&'()*+,=:@-._~", "/!$&'()*+,=:@-._~"),
    ] {
        let found = path(raw, Oddities::NONE);
        match normal {
            "above" => assert_eq!(found, Err(Refusal::PathAboveRoot), "{raw}"),
            "control" => assert_eq!(found, Err(Refusal::PathControl), "{raw}"),
            _ => assert_eq!(found.map(|found| found.path.into_owned()), Ok(normal.to_owned()), "{raw}"),
        }
    }
}

#[test]
fn what_has_no_one_form_is_refused() {
    use Refusal::*;
    for (raw, reason) in [
        ("", TargetForm),
        ("a", TargetForm),
        ("/..", PathAboveRoot),
        ("/a/../..", PathAboveRoot),
        ("/a/%2e%2E/%2e%2e/etc/passwd", PathAboveRoot),
        ("//../a", PathAboveRoot),
        ("/a%2fb", PathEncodedSlash),
        ("/a%2Fb", PathEncodedSlash),
        ("/..%2f..%2f", PathEncodedSlash),
        ("/a%5cb", PathEncodedSlash),
        ("/a\\b", PathBackslash),
        ("/..\\..\\a", PathBackslash),
        ("/%00", PathControl),
        ("/a%0d%0ab", PathControl),
        ("/%1f", PathControl),
        ("/%7f", PathControl),
        ("/\t", PathControl),
        ("/%c2%85", PathControl),
        ("/a;b", PathParameter),
        ("/..;/a", PathParameter),
        ("/;/a", PathParameter),
        ("/%252e", PathDoubleEncoding),
        ("/%25%32%65", PathDoubleEncoding),
        ("/%2525", PathDoubleEncoding),
        ("/%", PathEncoding),
        ("/%2", PathEncoding),
        ("/%zz", PathEncoding),
        ("/%%32%65", PathEncoding),
        ("/%u002f", PathEncoding),
        ("/%-1", PathEncoding),
        ("/%c0%ae", PathUtf8),
        ("/%c0%af", PathUtf8),
        ("/%e0%80%af", PathUtf8),
        ("/%f0%80%80%af", PathUtf8),
        ("/%ed%a0%80", PathUtf8),
        ("/%f4%90%80%80", PathUtf8),
        ("/%ff", PathUtf8),
        ("/%80", PathUtf8),
        ("/%e4%bd", PathUtf8),
        ("/%e4a%bd%a0", PathUtf8),
        ("/%e4/%bd%a0", PathUtf8),
        ("/%e4%41", PathUtf8),
        ("/a#b", TargetByte),
        ("/ä", TargetByte),
    ] {
        assert_eq!(path(raw, Oddities::NONE), Err(reason), "{raw}");
    }
}

#[test]
fn a_route_may_allow_the_unusual_but_never_a_hidden_climb() {
    let allowed = |raw: &'static str| path(raw, ALL).map(|found| (found.path.into_owned(), found.oddities));
    assert_eq!(allowed("/a%2fb"), Ok(("/a%2Fb".into(), Oddities::ENCODED_SLASH)));
    assert_eq!(allowed("/a;v=1/b"), Ok(("/a;v=1/b".into(), Oddities::PARAMETER)));
    assert_eq!(allowed("/%2541"), Ok(("/%2541".into(), Oddities::DOUBLE_ENCODING)));
    assert_eq!(
        allowed("/x;y%2fz"),
        Ok(("/x;y%2Fz".into(), Oddities::ENCODED_SLASH.with(Oddities::PARAMETER)))
    );
    for raw in [
        "/a/..;/b",
        "/a/..;x/b",
        "/a/.;/b",
        "/a/..%2fb",
        "/a/%2e%2e%2fb",
        "/a/b%2f..",
        "/a/x%5c..%5cy",
        "/a/..;x%2fb",
    ] {
        assert_eq!(allowed(raw), Err(Refusal::PathAboveRoot), "{raw}");
    }
    let only_slash = path("/a;b%2fc", Oddities::ENCODED_SLASH);
    assert_eq!(only_slash, Err(Refusal::PathParameter));
    assert!(Oddities::PARAMETER.within(ALL) && !ALL.within(Oddities::PARAMETER));
}

#[test]
fn a_path_in_its_form_is_not_copied() {
    for raw in ["/", "/a/b.html", "/a/%20/", "/.well-known/a", "/%E4%BD%A0"] {
        assert!(
            matches!(path(raw, Oddities::NONE), Ok(found) if matches!(found.path, Cow::Borrowed(_))),
            "{raw}"
        );
    }
}

fn any_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/".to_owned()),
        Just(".".to_owned()),
        Just("..".to_owned()),
        Just("%2e".to_owned()),
        Just("%2F".to_owned()),
        Just("%25".to_owned()),
        Just(";".to_owned()),
        Just("\\".to_owned()),
        "%[0-9a-fA-F]{2}",
        "[ -~]{1,3}",
        "[a-z0-9]{1,4}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// How a server that decodes once and then resolves would see a path.
fn decoded(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| std::str::from_utf8(&bytes[at + 1..at + 3]).unwrap());
        out.push(code.map_or(bytes[at], |code| u8::from_str_radix(code, 16).unwrap()));
        at += if code.is_some() { 3 } else { 1 };
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_form_is_final(raw in any_path(), allow in prop_oneof![Just(Oddities::NONE), Just(ALL)]) {
        if let Ok(normal) = path(&raw, allow) {
            let again = path(&normal.path, allow);
            prop_assert_eq!(again.as_ref().map(|again| &*again.path), Ok(&*normal.path));
            prop_assert!(normal.path.starts_with('/'));
            prop_assert!(normal.path.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }

    #[test]
    fn a_server_that_decodes_sees_nothing_left_to_resolve(raw in any_path()) {
        if let Ok(normal) = path(&raw, Oddities::NONE) {
            let seen = decoded(&normal.path);
            prop_assert!(std::str::from_utf8(&seen).is_ok());
            let segments: Vec<_> = seen.split(|byte| *byte == b'/').collect();
            prop_assert_eq!(segments.len(), normal.path.split('/').count());
            prop_assert!(segments.iter().all(|segment| *segment != b"." && *segment != b".."));
            prop_assert!(segments[1..segments.len() - 1].iter().all(|segment| !segment.is_empty()));
        }
    }
}
