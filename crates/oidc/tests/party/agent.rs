//! Somebody at a browser: follows links, keeps cookies, fills in forms. curl does the work.

use std::path::PathBuf;
use std::process::Command;

use url::Url;

pub(crate) struct Agent {
    folder: tempfile::TempDir,
    ca: PathBuf,
}

/// Where the browser is: a page, or a redirect that leads to another host.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) text: String,
}

impl Agent {
    pub(crate) fn new(ca: PathBuf) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), ca }
    }

    /// Goes to `url` and on to wherever it is sent, but not to the clinic, which does not exist.
    pub(crate) fn visit(&self, url: &str) -> Page {
        self.follow(url, None)
    }

    /// Sends a form.
    pub(crate) fn submit(&self, url: &str, form: &str) -> Page {
        self.follow(url, Some(form))
    }

    /// Signs in as `user`, consents to whatever is asked, and comes back with the callback's parameters.
    pub(crate) fn sign_in(&self, url: &str, user: &str) -> Callback {
        let mut page = self.visit(url);
        for _ in 0..4 {
            if page.url.host_str() == Some("portal.clinic.example") {
                return Callback::read(&page.url);
            }
            let form = if page.text.contains("name=\"login\"") || page.text.contains("value=\"login\"") {
                format!("prompt=login&login={user}&password=x")
            } else {
                "prompt=consent".to_owned()
            };
            page = self.submit(page.url.as_str(), &form);
        }
        panic!("the sign-in does not end: {page:?}");
    }

    /// Signs out and comes back.
    pub(crate) fn sign_out(&self, url: &str) -> Page {
        let page = self.visit(url);
        let field = |name: &str| {
            let start =
                page.text.find(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("{page:?}"));
            page.text[start..].split('"').nth(3).unwrap().to_owned()
        };
        let action = page.text.split("action=\"").nth(1).unwrap().split('"').next().unwrap();
        let action = page.url.join(action).unwrap();
        self.submit(action.as_str(), &format!("xsrf={}&logout=yes", field("xsrf")))
    }

    /// Exchanges a code for an access token by hand.
    pub(crate) fn exchange(&self, issuer: &str, begun: &crate::federation::Begun, code: &str) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &begun.redirect_uri),
            ("code_verifier", &begun.verifier),
        ]);
        let user = "clinic-gateway:a+secret%2Fwith+%2Bodd%25+signs";
        let output = Command::new("curl")
            .args([
                "--silent",
                "--max-time",
                "90",
                "--noproxy",
                "*",
                "--user",
                user,
                "--data",
                &form.finish(),
            ])
            .arg(format!("{issuer}/token"))
            .output()
            .expect("curl can be started");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn follow(&self, url: &str, mut form: Option<&str>) -> Page {
        let mut url = Url::parse(url).unwrap();
        for _ in 0..10 {
            if url.host_str() == Some("portal.clinic.example") {
                return Page { url, text: String::new() };
            }
            let (text, next) = self.load(&url, form.take());
            match next {
                Some(next) => url = next,
                None => return Page { url, text },
            }
        }
        panic!("too many redirects, last to {url}");
    }

    fn load(&self, url: &Url, form: Option<&str>) -> (String, Option<Url>) {
        let jar = self.folder.path().join("cookies");
        let body = self.folder.path().join("body");
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "90",
            "--noproxy",
            "*",
            "--write-out",
            "%{redirect_url}",
        ]);
        curl.arg("--cookie").arg(&jar).arg("--cookie-jar").arg(&jar).arg("--output").arg(&body);
        if self.ca.exists() {
            curl.arg("--cacert").arg(&self.ca);
        }
        if let Some(form) = form {
            curl.args(["--data", form]);
        }
        let output = curl.arg(url.as_str()).output().expect("curl can be started");
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        let next = String::from_utf8(output.stdout).unwrap();
        let text = String::from_utf8_lossy(&std::fs::read(&body).unwrap_or_default()).into_owned();
        (text, (!next.is_empty()).then(|| Url::parse(&next).unwrap()))
    }
}

/// What a browser brings back.
#[derive(Clone, Debug)]
pub(crate) struct Callback {
    pub(crate) code: String,
    pub(crate) state: String,
    pub(crate) iss: Option<String>,
}

impl Callback {
    fn read(url: &Url) -> Self {
        let get = |name| url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
        let need = |name| get(name).unwrap_or_else(|| panic!("no {name}: {url}"));
        Self { code: need("code"), state: need("state"), iss: get("iss") }
    }
}
