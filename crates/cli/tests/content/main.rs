//! Rules beside the fence, end to end: they are brought, judged, in force, changed while it runs, explained, measured, and what they should
//! not have found is excluded.
#![expect(clippy::unwrap_used, reason = "test")]

mod fetch;
mod rules;
#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;

/// A rule that looks for words of a file.
const RULE: &str = "# Words that nobody says.
SecRule ARGS \"@pmFromFile words.data\" \\
    \"id:1001,\\
    phase:2,\\
    deny,\\
    status:403,\\
    t:none,t:lowercase,\\
    msg:'A word that nobody says'\"
";
