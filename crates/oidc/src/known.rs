//! What is known of a provider at one moment.

use std::sync::Arc;

use ringfence_token::KeySet;

use crate::discovery::Metadata;

/// Metadata and keys that may be relied on.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) keys: Arc<KeySet>,
}
