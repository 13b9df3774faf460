//! Why a question over the control socket was refused.

use axum::http::StatusCode;
use ringfence_store::StoreError;

/// Why a question was refused.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

impl From<(StatusCode, String)> for Refusal {
    fn from((status, why): (StatusCode, String)) -> Self {
        Self(status, why)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}
