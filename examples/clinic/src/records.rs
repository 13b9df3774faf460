//! What the services tell each other over JSON.

use serde::{Deserialize, Serialize};

/// A patient as listed: without health data.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) born: String,
}

/// How a patient is called and reached: all that most services need.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Contact {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
}

/// A patient in full.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Patient {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) born: String,
    pub(crate) email: String,
    pub(crate) blood_group: String,
    pub(crate) conditions: Vec<String>,
    pub(crate) allergies: Vec<String>,
    /// What laboratories found.
    #[serde(default)]
    pub(crate) results: Vec<LabResult>,
}

/// What a laboratory found.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LabResult {
    pub(crate) test: String,
    pub(crate) value: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Appointment {
    pub(crate) id: String,
    pub(crate) patient: String,
    pub(crate) patient_name: String,
    /// Local date and time, `2031-05-04T09:30`.
    pub(crate) at: String,
    pub(crate) reason: String,
}

/// What is asked for when an appointment is made.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Booking {
    pub(crate) patient: String,
    pub(crate) at: String,
    pub(crate) reason: String,
}

/// A message for the mailer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// What the mail server said when it took a message.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sent {
    pub(crate) to: String,
    pub(crate) server: String,
    pub(crate) reply: String,
}

/// `p-1001`: safe to put into a path.
pub(crate) fn is_id(prefix: char, id: &str) -> bool {
    let digits = id.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|d| (1..=8).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit()))
}
