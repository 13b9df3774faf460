//! What is SQL or a script by its structure, not by its words: `@detectSQLi` and `@detectXSS`.
//!
//! SQL: a value is cut into tokens as databases would, first as it stands, then as if it stood in a string; a few rules
//! merge tokens, and the kinds of the first five are a fingerprint that is looked up among those that injections have
//! and prose has not. Scripts: a value is read as HTML would be, in each place where it may end up, and names of
//! elements and attributes decide.
//!
//! The decisions are those of libinjection 4, which rule sets are tuned for. The tables of words and fingerprints are
//! its tables (see NOTICE); reading beyond a value's end and ending at byte 0xff are not taken over.

mod fold;
mod html;
mod sqli;
mod token;
mod words;
mod xss;

pub use sqli::{Fingerprint, sqli};
pub use xss::xss;

#[cfg(test)]
mod tests;
