//! Entity data of a server that works, changes, lies and goes away.

use ringfence_oidc::protocol::{
    EntitiesConfig, EntitiesNews, FromFederation, MAX_ENTITIES_BYTES, ToFederation,
};
use serde_json::json;

use crate::federation::Federation;
use crate::liar::{Answer, Liar};

fn config(url: &str) -> EntitiesConfig {
    EntitiesConfig { url: url.into(), every_ms: 1_000, ca: None, allow_private: true }
}

fn raw(status: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Raw(format!("HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\n\r\n{body}").into_bytes())
}

/// What the next news of an address is: data, `same`, or the trouble.
fn next(federation: &mut Federation, of: &str) -> Result<String, String> {
    federation.wait(|message| match message {
        FromFederation::Entities { url, news } if url == of => Some(match news {
            EntitiesNews::Data(text) => Ok(text.clone()),
            EntitiesNews::Same => Ok("same".to_owned()),
            EntitiesNews::Trouble(reason) => Err(reason.clone()),
        }),
        _ => None,
    })
}

#[test]
fn data_is_fetched_again_and_again_and_told_when_it_changed() {
    let liar = Liar::start();
    let url = format!("{}/entities?of=clinic", liar.issuer);
    liar.put("/entities?of=clinic", Answer::Json(json!([1])));
    let mut federation = Federation::start();
    federation.tell(&ToFederation::Entities(Some(config(&url))));
    assert_eq!(next(&mut federation, &url), Ok("[1]".into()));
    assert_eq!(next(&mut federation, &url), Ok("same".into()));
    liar.put("/entities?of=clinic", raw("200 OK", "etag: \"2\"\r\n", "[2]"));
    let changed =
        std::iter::repeat_with(|| next(&mut federation, &url)).find(|news| *news != Ok("same".into()));
    assert_eq!(changed, Some(Ok("[2]".into())));
    liar.put("/entities?of=clinic", raw("304 Not Modified", "", ""));
    assert_eq!(next(&mut federation, &url), Ok("same".into()));

    // What is wrong is said every time, and the data of before is not told again when the server is back.
    for (answer, reason) in [
        (raw("500 Oops", "", "[]"), "answers 500"),
        (
            raw("302 Found", "location: http://169.254.169.254/\r\n", ""),
            "redirects to http://169.254.169.254/",
        ),
        (raw("200 OK", "content-encoding: gzip\r\n", "x"), "compressed"),
        (Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff".to_vec()), "no text"),
        (Answer::Endless, "more than 4194304 bytes"),
        (Answer::Raw(b"SSH-2.0-x\r\n".to_vec()), "does not speak HTTP"),
    ] {
        liar.put("/entities?of=clinic", answer);
        let mut told = std::iter::repeat_with(|| next(&mut federation, &url)).filter_map(Result::err);
        let mut found = told.next().unwrap();
        if !found.contains(reason) {
            // What was asked for a moment ago was told first.
            found = told.next().unwrap();
        }
        assert!(found.contains(reason), "{reason}: {found}");
    }
    assert_eq!(MAX_ENTITIES_BYTES, 4_194_304);
    liar.put("/entities?of=clinic", raw("200 OK", "", "[2]"));
    let back = std::iter::repeat_with(|| next(&mut federation, &url)).find_map(Result::ok);
    assert_eq!(back, Some("same".into()));

    // Another server, and then none.
    let other = format!("{}/other", liar.issuer);
    federation.tell(&ToFederation::Entities(Some(config(&other))));
    assert!(next(&mut federation, &other).unwrap_err().contains("answers 404"));
    federation.tell(&ToFederation::Entities(None));
    // One question may be on its way; who goes on asks each second.
    let quiet = (0..20).any(|_| {
        let asked = liar.asked("/other");
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        liar.asked("/other") == asked
    });
    assert!(quiet, "nobody asks any more");
}

#[test]
fn a_server_inside_is_asked_only_where_that_is_declared() {
    let liar = Liar::start();
    let url = format!("{}/entities", liar.issuer).replace("http:", "https:");
    let mut federation = Federation::start();
    let outside = EntitiesConfig { allow_private: false, ..config(&url) };
    federation.tell(&ToFederation::Entities(Some(outside)));
    assert!(next(&mut federation, &url).unwrap_err().contains("allow_private"));
    assert_eq!(liar.asked("/entities"), 0);
}
