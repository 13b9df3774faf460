use proptest::prelude::*;

use super::super::tests::Kept;
use super::*;

const TYPE: &str = "multipart/form-data; boundary=bb";

fn parsed(content_type: &str, body: &[u8]) -> (Vec<String>, Outcome) {
    let mut kept = Kept::default();
    let outcome =
        parse(content_type.as_bytes(), body, &Limits::default(), &mut Scratch::default(), &mut kept);
    (kept.0, outcome)
}

/// One part with these headers, then the end.
fn part(headers: &str, content: &str) -> Vec<u8> {
    format!("--bb\r\n{headers}\r\n\r\n{content}\r\n--bb--\r\n").into_bytes()
}

fn field(parameters: &str) -> Vec<u8> {
    part(&format!("Content-Disposition: form-data; {parameters}"), "v")
}

#[test]
fn fields_and_files() {
    let body = b"--bb\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n2\r\n\r\n--bb\r\nContent-Type: text/plain\r\ncontent-disposition: form-data; name=f; filename=\"x\\\"y.txt\"\r\n\r\nfile\r\n--data\r\n--bb--\r\n";
    let (items, outcome) = parsed(TYPE, body);
    let expected = [
        "header a=Content-Disposition: form-data; name=\\\"a\\\"",
        "a=1\\r\\n2\\r\\n",
        "header f=Content-Type: text/plain",
        "header f=content-disposition: form-data; name=f; filename=\\\"x\\\\\\\"y.txt\\\"",
        "file f=x\\\"y.txt=12",
    ];
    assert_eq!(items, expected);
    let flags = Flags { crlf_line: true, unmatched_boundary: 2, ..Flags::default() };
    assert_eq!(outcome, Outcome { multipart: flags, ..Outcome::default() });
    assert!(!flags.strict_error());
    // The last line break may be missing.
    assert_eq!(parsed(TYPE, &body[..body.len() - 2]).0, items);
}

#[test]
fn what_is_unusual_raises_its_flag() {
    let plain = Flags { crlf_line: true, unmatched_boundary: 2, ..Flags::default() };
    let body = field("name=a");
    let text = String::from_utf8(body.clone()).unwrap();
    let cases = [
        ("multipart/form-data; boundary=\"bb\"", text.clone(), Flags { boundary_quoted: true, ..plain }),
        ("multipart/form-data; boundary =bb", text.clone(), Flags { boundary_whitespace: true, ..plain }),
        (
            "Multipart/Form-Data boundary=bb ; charset=utf-8",
            text.clone(),
            Flags { missing_semicolon: true, ..plain },
        ),
        (TYPE, format!("x\r\n{text}"), Flags { data_before: true, ..plain }),
        (TYPE, format!("{text}x"), Flags { data_after: true, ..plain }),
        (TYPE, text.replace("\r\n", "\n"), Flags { lf_line: true, crlf_line: false, ..plain }),
        (TYPE, text.replacen("\r\n", "\n", 1), Flags { lf_line: true, ..plain }),
        (TYPE, text.replace("; name", ";\r\n name"), Flags { header_folding: true, ..plain }),
        (
            TYPE,
            text.replace("; name", ";\r\n\x0b name"),
            Flags { header_folding: true, invalid_header_folding: true, ..plain },
        ),
        (TYPE, text.replace("=a", "='a'"), Flags { invalid_quoting: true, ..plain }),
        (TYPE, text.replace("=a", "=a\r\nX y: z"), Flags { invalid_part: true, ..plain }),
        (TYPE, text.replace("v\r\n", "v --bb\r\n--other\r\n"), plain),
        (TYPE, format!("--bx\r\n{text}"), Flags { data_before: true, ..plain }),
    ];
    for (content_type, body, flags) in cases {
        let (items, outcome) = parsed(content_type, body.as_bytes());
        assert_eq!(outcome, Outcome { multipart: flags, ..Outcome::default() }, "{content_type}\n{body}");
        assert!(items.last().unwrap().starts_with("a=v"), "{items:?}");
        assert!(flags == plain || flags.strict_error());
    }
}

#[test]
fn what_two_parsers_read_differently_is_refused() {
    let wrong_types = [
        "multipart/form-data",
        "multipart/mixed; boundary=bb",
        "multipart/form-data; Boundary=bb",
        "multipart/form-data; charset=x; boundary=bb",
        "multipart/form-data; boundary=bb; boundary=cc",
        "multipart/form-data; boundaryx=bb",
        "multipart/form-data; boundary=\"bb",
        "multipart/form-data; boundary=b\"b",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=b\u{e9}",
        "multipart/form-data; boundary=\"bb\"x",
    ];
    for content_type in wrong_types {
        let (items, outcome) = parsed(content_type, &field("name=a"));
        assert!(matches!(outcome.error, Some(Error::Malformed { at: 0, .. })), "{content_type}: {outcome:?}");
        assert!(items.is_empty() && outcome.multipart.strict_error());
    }
    let disposition = "Content-Disposition: form-data; name=a";
    let bodies = [
        field("name=\"\""),
        field("name"),
        field("name=\"a"),
        field("name=a b"),
        field("name=a; name=b"),
        field("name=a; size=3"),
        field("name=a; filename*=utf-8''b"),
        field("name=a; filename=b; filename*=utf-7''b"),
        field("name=a; filename=b; filename*=utf-8''%zz"),
        part("Content-Disposition: attachment; name=a", ""),
        part("Content-Type: text/plain", ""),
        part(&format!("{disposition}\r\n{disposition}"), ""),
        part(&format!("{disposition}\r\nno colon"), ""),
        part(&format!("{disposition}\r\n: x"), ""),
        part(&format!("{disposition}\r\nx: \0"), ""),
        part(&format!(" folded\r\n{disposition}"), ""),
        part(disposition, "x\r\n--bbx"),
        part(disposition, "x\r\n-- bb"),
        part(&format!("{disposition}\r\n--bb"), "x"),
        b"no boundary\r\n at all".to_vec(),
        b"a part of another boundary\r\n--bb--".to_vec(),
    ];
    for body in bodies {
        let (_, outcome) = parsed(TYPE, &body);
        assert!(
            matches!(outcome.error, Some(Error::Malformed { .. })),
            "{}: {outcome:?}",
            body.escape_ascii()
        );
        assert!(outcome.multipart.strict_error());
    }
    let (_, outcome) = parsed("multipart/form-data; boundary=\"bb\"", b"--\"bb\"\r\n");
    assert!(matches!(outcome.error, Some(Error::Malformed { .. })));
}

#[test]
fn both_names_of_a_file_are_judged() {
    let (items, outcome) = parsed(TYPE, &field("name=a; filename=\"b\"; filename*=UTF-8'en'%2e%2e%2Fc"));
    assert_eq!(items[1..], ["file a=b=1", "file a=../c=0"]);
    assert_eq!(outcome.error, None);
    // No file chosen: what stands there is judged as text.
    assert_eq!(parsed(TYPE, &field("name=a; filename=\"\"")).0[1..], ["a=v"]);
}

#[test]
fn the_head_of_a_cut_body_is_handed_on() {
    let body = field("name=a");
    let cut = body.len() - "\r\n--bb--\r\n".len();
    let (items, outcome) = parsed(TYPE, &body[..cut]);
    assert_eq!((items.last().unwrap().as_str(), outcome.error), ("a=v", Some(Error::Incomplete)));
    for end in 1..body.len() - 2 {
        assert_eq!(parsed(TYPE, &body[..end]).1.error, Some(Error::Incomplete), "{end}");
    }
    assert_eq!(parsed(TYPE, b"").1, Outcome::default());
}

#[test]
fn headers_and_parts_are_bounded() {
    let disposition = "Content-Disposition: form-data; name=a";
    let long = part(&format!("{disposition}\r\nX: {}", "y".repeat(5_000)), "");
    assert_eq!(parsed(TYPE, &long).1.error, Some(Error::TooLong));
    let folded = part(&format!("{disposition}\r\nX: y{}", "\r\n z".repeat(2_000)), "");
    assert_eq!(parsed(TYPE, &folded).1.error, Some(Error::TooLong));
    let many: String = (0..40).map(|n| format!("\r\nX{n}: y")).collect();
    assert_eq!(parsed(TYPE, &part(&format!("{disposition}{many}"), "")).1.error, Some(Error::TooMany));
    let one = format!("--bb\r\n{disposition}\r\n\r\nv\r\n");
    let (items, outcome) = parsed(TYPE, format!("{}--bb--", one.repeat(6_000)).as_bytes());
    assert_eq!((items.len(), outcome.error), (5_000, Some(Error::TooMany)));
}

proptest! {
    #[test]
    fn what_was_put_in_comes_out(parts in prop::collection::vec(
        ("[a-z\"\\\\ ;=]{1,6}", prop::option::of("[a-z\"\\\\.]{1,6}"), prop::collection::vec(any::<u8>(), 0..40)), 0..5
    ), feed: bool) {
        let line_break = if feed { "\n" } else { "\r\n" };
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut body = Vec::new();
        let mut expected = Vec::new();
        for (name, filename, content) in &parts {
            prop_assume!(!content.windows(2).any(|w| w == b"--"));
            let file = filename.as_ref().map(|f| format!("; filename=\"{}\"", quoted(f))).unwrap_or_default();
            let head = format!("--bb{line_break}Content-Disposition: form-data; name=\"{}\"{file}{line_break}{line_break}", quoted(name));
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(line_break.as_bytes());
            let name = name.as_bytes().escape_ascii();
            // A carriage return before a lone line feed cannot be told from a line break.
            let cut = usize::from(feed && content.ends_with(b"\r"));
            let content = &content[..content.len() - cut];
            expected.push(match filename {
                Some(file) => format!("file {name}={}={}", file.as_bytes().escape_ascii(), content.len()),
                None => format!("{name}={}", content.escape_ascii()),
            });
        }
        body.extend_from_slice(b"--bb--");
        if parts.is_empty() {
            body.extend_from_slice(line_break.as_bytes());
        }
        let (mut items, outcome) = parsed(TYPE, &body);
        items.retain(|item| !item.starts_with("header "));
        prop_assert_eq!(outcome.error, None);
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn any_bytes_end(content_type in "(?s)multipart/form-data.{0,20}boundary.{0,12}", body: Vec<u8>) {
        parsed(&content_type, &body);
        parsed(TYPE, &body);
    }

    #[test]
    fn likely_lines_end(lines in prop::collection::vec("(--bb|--bb--|-- bb|Content-Disposition: form-data; name=a|Content-Disposition: form-data; filename=\"|x:y| z||--)(\r\n|\n|)", 0..12)) {
        let (items, outcome) = parsed(TYPE, lines.concat().as_bytes());
        prop_assert!(items.len() <= lines.len() * 2);
        prop_assert!(!outcome.multipart.error || outcome.error.is_some());
    }
}
