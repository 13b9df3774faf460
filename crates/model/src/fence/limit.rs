//! How much may come in, and what gives way under overload.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Mode;
use crate::position::Position;

/// One of `limit:`: how much each of something may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRule {
    /// Of what each is counted.
    pub by: By,
    /// How many requests per time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Amount>,
    /// How many of them at once; as many as the rate has units without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// How many in a window that begins with the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Amount>,
    /// How many at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// How much a request counts.
    pub cost: u32,
    /// What becomes of one too many.
    pub mode: Mode,
    /// What becomes of somebody new when there is no room to count them.
    #[serde(default)]
    pub full: WhenFull,
    /// Where it is declared.
    pub position: Position,
}

/// Of what each is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Address of the gateway's client; of IPv6 the network of 64 bits.
    Address,
    /// Whoever is behind the request: a user, or software that acts for itself.
    User,
    /// The client of a provider that a user acts through, or that acts for itself.
    Client,
    /// The client of an API key.
    ApiKey,
    /// The calling service.
    Caller,
    /// The route, or the edge: all requests along it together.
    Route,
    /// What a claim of the credential says, such as the tenant.
    Claim(String),
}

/// So many per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub units: u64,
    /// In what time.
    pub window: Duration,
}

/// What becomes of somebody new when there is no room to count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// They are refused.
    #[default]
    Deny,
    /// They pass, uncounted.
    Allow,
}

/// What gives way under overload, from the last to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Nothing of it is refused.
    Critical,
    /// What is not said otherwise.
    Normal,
    /// It is refused first.
    Sheddable,
}

/// What the gateway is protected by where nothing is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// Begins and ends of sign-ins, per address.
    pub sign_in: Option<Amount>,
    /// All of them together.
    pub sign_in_all: Option<Amount>,
    /// Credentials that were refused, per address.
    pub failures: Option<Amount>,
}

impl Default for Guards {
    fn default() -> Self {
        let per_minute = |units| Some(Amount { units, window: Duration::from_secs(60) });
        Self { sign_in: per_minute(60), sign_in_all: per_minute(3_000), failures: per_minute(60) }
    }
}

impl By {
    /// The word for it in the fence, and in the names of rules.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::User => "user",
            Self::Client => "client",
            Self::ApiKey => "api_key",
            Self::Caller => "caller",
            Self::Route => "route",
            Self::Claim(_) => "claim",
        }
    }

    /// Whether it needs to be known who asks.
    #[must_use]
    pub const fn is_about_somebody(&self) -> bool {
        matches!(self, Self::User | Self::Client | Self::ApiKey | Self::Claim(_))
    }
}

impl LimitRule {
    /// Most rules of one place.
    pub const MOST: usize = 6;

    /// How many at once, if it has a rate.
    #[must_use]
    pub fn at_once(&self) -> Option<u64> {
        self.rate.map(|rate| self.burst.unwrap_or(rate.units))
    }

    /// Most that one request may cost to pass at all.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.at_once().unwrap_or(u64::MAX).min(self.quota.map_or(u64::MAX, |quota| quota.units))
    }
}

impl Priority {
    /// The word for it in the fence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Sheddable => "sheddable",
        }
    }
}

/// As the fence has it.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.window.as_millis();
        let (amount, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]
            .into_iter()
            .find(|(unit, _)| millis.is_multiple_of(*unit) && millis > 0)
            .map_or((millis, "ms"), |(size, unit)| (millis / size, unit));
        write!(f, "{}/{amount}{unit}", self.units)
    }
}
