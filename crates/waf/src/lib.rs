//! The web application firewall: an engine for SecLang, the language of ModSecurity, that runs the OWASP Core Rule Set unmodified.
//!
//! Rules are compiled once into a plan; a request then costs what its values cost, not what the rules count.
//!
//! ```
//! use std::sync::Arc;
//! use ringfence_waf::{Options, Rules, Scratch, Source, Transaction, Verdict};
//!
//! let rules = r#"SecRule ARGS "@contains /etc/passwd" "id:1,phase:2,deny,status:403,t:urlDecodeUni,msg:'A file'""#;
//! let rules = Rules::load(&[Source::base(), Source::new("my.conf", rules)], &(), &Options::default()).unwrap();
//! let mut transaction = Transaction::new(&Arc::new(rules), Scratch::default());
//! transaction.request_line(b"GET", b"/?file=../../etc/passwd", b"HTTP/1.1");
//! transaction.request_header(b"Host", b"clinic.example");
//! assert_eq!(transaction.phase1(), Verdict::Pass);
//! assert!(matches!(transaction.phase2(), Verdict::Stop(stop) if stop.rule == 1));
//! assert_eq!(transaction.matches()[0].variables[0].name, "ARGS:file");
//! ```

#![forbid(unsafe_code)]

pub mod body;
pub mod detect;
pub mod operator;
pub mod transform;

mod baseline;
mod engine;
mod exclusion;
mod lang;
mod plan;
mod rules;
mod set;

pub use engine::{
    Cost, Interest, Interruption, Match, MatchedVariable, Mode, Scores, Scratch, Stop, Transaction, Verdict,
};
pub use exclusion::{Exclusion, ExclusionError, Selection};
#[doc(hidden)]
pub use lang::parse_only;
pub use rules::{Files, LoadError, Options, RuleInfo, Rules, Source};
pub use set::Set;
