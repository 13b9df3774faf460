//! Drills against the running clinic.
