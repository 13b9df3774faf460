//! How far the body of a request has come.

use bytes::BytesMut;

use crate::body::Trailers;
use crate::front::Front;
use crate::held::{Held, Share};

/// Bytes of a body that are kept for another try.
const KEPT: usize = 64 << 10;

/// How far the request's body has come; outlives a try, because what was taken from the client cannot be asked for again.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Bytes taken from the client.
    pub(crate) taken: u64,
    pub(crate) ended: bool,
    pub(crate) sent: bool,
    pub(crate) trailers: Option<Trailers>,
    /// What was read of it before it was let pass, and what counts that until it has left.
    pub(crate) held: Option<Held>,
    pub(crate) share: Option<Share>,
    /// Whether the client was told already to send it.
    pub(crate) asked: bool,
    /// What was sent of it, as long as it can be sent again.
    kept: Option<(BytesMut, Share)>,
}

impl Flow {
    /// A body of which this was read already.
    pub(crate) fn of(held: Option<Held>) -> Self {
        Self { asked: held.is_some(), held, ..Self::default() }
    }

    /// Whether nothing of it is left but its end.
    pub(crate) fn is_over(&self, front: &Front<'_>) -> bool {
        front.request_is_end() && self.held.as_ref().is_none_or(Held::is_empty)
    }

    /// Keeps what is sent from now on, counted by `share`, for another try.
    pub(crate) fn keep(&mut self, share: Share) {
        self.kept = Some((BytesMut::new(), share));
    }

    /// A part of the body goes out. Of a longer one than is kept nothing is.
    pub(crate) fn passes(&mut self, data: &[u8]) {
        self.taken += data.len() as u64;
        if let Some((kept, share)) = &mut self.kept {
            if kept.len() + data.len() <= KEPT && share.grow(data.len()) {
                kept.extend_from_slice(data);
            } else {
                self.kept = None;
            }
        }
    }

    /// Trailers go out, which are not kept.
    pub(crate) fn passes_trailers(&mut self, trailers: Option<Trailers>) {
        if trailers.is_some() {
            self.kept = None;
        }
        self.trailers = trailers;
    }

    /// Whether all that was sent can be sent again.
    pub(crate) fn can_rewind(&self) -> bool {
        self.kept.is_some()
    }

    /// Everything that was sent is to be sent again, before the rest.
    pub(crate) fn rewind(&mut self) {
        let Some((kept, share)) = self.kept.take() else { return };
        let (again, rest) = share.split();
        if self.ended || !kept.is_empty() {
            self.held = Some(Held::again(kept.freeze(), self.ended, again));
        }
        (self.taken, self.ended, self.sent, self.share) = (0, false, false, None);
        self.keep(rest);
    }
}
