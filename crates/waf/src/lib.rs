//! The web application firewall: an engine for SecLang, the language of ModSecurity, that runs the OWASP Core Rule Set unmodified.
//!
//! Rules are compiled once into a plan; a request then costs what its values cost, not what the rules count.

#![forbid(unsafe_code)]

pub mod body;

pub mod operator;
pub mod transform;
