//! What responses give away: banners of programs and their versions, and in errors stack traces, debug pages and words of databases.
//!
//! Banners are taken out. Only the first bytes of an answer that says it is a server's error are looked at: what a program says of its
//! insides stands at the beginning, and everything else streams.

use memchr::memmem;
use ringfence_model::Mode;

use crate::deny::Deny;
use crate::note::{Note, Notes};
use crate::view::ResponseView;

/// Bytes of an error's body that are looked at.
const LOOKED_AT: usize = 16 * 1024;

/// Media types that people read.
const TEXTS: [&[u8]; 5] =
    [b"text/", b"application/json", b"application/problem", b"application/xml", b"application/xhtml"];

/// Header fields that name programs and versions.
const BANNERS: [&str; 14] = [
    "server",
    "x-powered-by",
    "x-powered-cms",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-generator",
    "x-runtime",
    "x-php-version",
    "x-debug-token",
    "x-debug-token-link",
    "x-debug-exception",
    "x-debug-exception-file",
    "x-backend-server",
    "x-application-context",
];

/// What programs say of their insides, and whose words it is.
const WORDS: &[(&str, &str)] = &[
    ("java", "java.lang."),
    ("java", "\tat org."),
    ("java", "\tat com."),
    ("java", "\tat java."),
    ("java", "\tat sun."),
    ("java", "Caused by: java"),
    ("java", "javax.servlet."),
    ("java", "jakarta.servlet."),
    ("java", "org.springframework."),
    ("java", "Whitelabel Error Page"),
    ("python", "Traceback (most recent call last)"),
    ("python", "Werkzeug Debugger"),
    ("python", "werkzeug.exceptions"),
    ("python", "You're seeing this error because you have <code>DEBUG = True"),
    ("python", "django.core."),
    ("node", "at Module._compile"),
    ("node", "at Object.<anonymous> ("),
    ("node", "at processTicksAndRejections"),
    ("node", "at Layer.handle"),
    ("node", "node_modules/"),
    ("node", "node:internal/"),
    ("php", "PHP Fatal error"),
    ("php", "PHP Warning"),
    ("php", "PHP Parse error"),
    ("php", "<b>Fatal error</b>"),
    ("php", "<b>Parse error</b>"),
    ("php", "<b>Warning</b>:"),
    ("php", "Stack trace:\n#0 "),
    ("php", "Uncaught Exception"),
    ("php", "Illuminate\\"),
    ("php", "Symfony\\Component\\"),
    ("php", "Whoops, looks like something went wrong"),
    ("dotnet", "   at System."),
    ("dotnet", "   at Microsoft."),
    ("dotnet", "Server Error in '/"),
    ("dotnet", "System.NullReferenceException"),
    ("dotnet", "System.InvalidOperationException"),
    ("dotnet", "Microsoft.AspNetCore."),
    ("dotnet", "--- End of inner exception stack trace ---"),
    ("dotnet", "<title>Runtime Error</title>"),
    ("go", "[running]:\n"),
    ("go", "panic: runtime error"),
    ("go", "runtime/debug.Stack"),
    ("go", "/usr/local/go/src/"),
    ("ruby", "ActionController::"),
    ("ruby", "ActiveRecord::"),
    ("ruby", "ActionView::"),
    ("ruby", "Action Controller: Exception caught"),
    ("ruby", ".rb:in `"),
    ("ruby", "NoMethodError"),
    ("ruby", "/lib/ruby/gems/"),
    ("rust", "' panicked at "),
    ("rust", "stack backtrace:"),
    ("sql", "You have an error in your SQL syntax"),
    ("sql", "SQLSTATE["),
    ("sql", "com.mysql."),
    ("sql", "mysql_fetch"),
    ("sql", "mysqli_"),
    ("sql", "Unknown column '"),
    ("sql", "org.postgresql."),
    ("sql", "psycopg2."),
    ("sql", "pg_query()"),
    ("sql", "ERROR: syntax error at or near"),
    ("sql", "unterminated quoted string at or near"),
    ("sql", "ORA-00"),
    ("sql", "ORA-01"),
    ("sql", "PLS-00"),
    ("sql", "sqlite3."),
    ("sql", "SQLITE_ERROR"),
    ("sql", "unrecognized token: \""),
    ("sql", "Unclosed quotation mark after the character string"),
    ("sql", "Microsoft OLE DB Provider"),
    ("sql", "System.Data.SqlClient."),
    ("sql", "ODBC SQL Server Driver"),
    ("sql", "Sequelize"),
];

/// How strictly responses are held to give nothing away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hygiene(Mode);

impl Hygiene {
    pub(super) fn new(mode: Mode) -> Self {
        Self(mode)
    }

    pub(super) fn is_off(self) -> bool {
        self.0.is_off()
    }

    /// The header fields that are taken out.
    pub(super) fn masked(self) -> &'static [&'static str] {
        if self.0.enforces() { &BANNERS } else { &[] }
    }

    /// How much of the body of a response with this head is looked at, if any.
    pub(crate) fn head(self, response: ResponseView<'_>, notes: &Notes) -> Option<usize> {
        if self.0 == Mode::Observe {
            for name in BANNERS {
                if let Some(value) = response.field(name) {
                    notes.would_deny("hygiene.banner".to_owned());
                    let message = "a response names what runs behind it";
                    notes.add(note("hygiene.banner", message, format!("RESPONSE_HEADERS:{name}"), value));
                }
            }
        }
        self.looks_at(response).then_some(LOOKED_AT)
    }

    /// Whether the body of a response with this head is looked at.
    pub(crate) fn looks_at(self, response: ResponseView<'_>) -> bool {
        if response.status() < 500 {
            return false;
        }
        let kind = response.field("content-type").unwrap_or_default();
        let begins = |start: &[u8]| kind.get(..start.len()).is_some_and(|k| k.eq_ignore_ascii_case(start));
        kind.is_empty() || TEXTS.into_iter().any(begins)
    }

    /// Looks at the beginning of an error's body.
    pub(crate) fn body(self, response: ResponseView<'_>, body: &[u8], notes: &Notes) -> Result<(), Deny> {
        let Some((whose, word)) = given_away(&body[..body.len().min(LOOKED_AT)]) else { return Ok(()) };
        let rule = format!("hygiene.{whose}");
        let reason = format!("the body of the error says what runs behind it: {word:?}");
        match self.0 {
            Mode::Enforce => Err(Deny::new(response.status(), "respond", rule, reason)),
            Mode::Observe | Mode::Off => {
                notes.add(note(&rule, &reason, "RESPONSE_BODY".to_owned(), word.as_bytes()));
                notes.would_deny(rule);
                Ok(())
            }
        }
    }
}

fn note(rule: &str, message: &str, target: String, value: &[u8]) -> Note {
    Note {
        stage: "respond",
        rule: rule.to_owned(),
        message: message.to_owned(),
        target,
        value: value.to_vec(),
        observed: true,
        ..Note::default()
    }
}

/// What a body says of the insides of a program: whose words, and which.
fn given_away(body: &[u8]) -> Option<(&'static str, &'static str)> {
    WORDS.iter().find(|(_, word)| memmem::find(body, word.as_bytes()).is_some()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_and_debug_pages_are_known_by_their_words() {
        for (body, whose) in [
            (
                "Exception in thread \"main\" java.lang.NullPointerException\n\tat com.example.A.b(A.java:3)",
                "java",
            ),
            ("Traceback (most recent call last):\n  File \"/srv/app.py\", line 3, in <module>", "python"),
            ("TypeError: x\n    at Module._compile (node:internal/modules/cjs/loader:1105:14)", "node"),
            ("<br />\n<b>Fatal error</b>:  Uncaught Error in /var/www/a.php on line <b>3</b>", "php"),
            ("System.NullReferenceException: Object reference\n   at App.Main()", "dotnet"),
            ("panic: runtime error: index out of range\n\ngoroutine 1 [running]:\nmain.main()", "go"),
            ("NoMethodError (undefined method `a' for nil:NilClass):\napp/a.rb:3:in `b'", "ruby"),
            ("thread 'main' panicked at src/main.rs:3:5:\nx\nstack backtrace:", "rust"),
            ("You have an error in your SQL syntax; check the manual", "sql"),
            ("ORA-00933: SQL command not properly ended", "sql"),
        ] {
            assert_eq!(given_away(body.as_bytes()).map(|found| found.0), Some(whose), "{body}");
        }
        for body in [
            "",
            "Internal Server Error",
            "{\"error\":\"the database is down, try again at 12:30\"}",
            "<html><body><h1>502 Bad Gateway</h1></body></html>",
            "Our Java course is full. Caused by: high demand.",
            "ORACLE",
        ] {
            assert_eq!(given_away(body.as_bytes()), None, "{body}");
        }
    }
}
