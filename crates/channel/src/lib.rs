//! Messages between Ringfence's own processes: why this is a crate.
//!
//! Keeper, control, proxy, shims and the supervisor speak to each other only over Unix socket pairs that one of them was
//! handed. Each of those channels carries untrusted bytes as far as the reader is concerned (a proxy may be taken over), so
//! there is one bounded codec for all of them, and one place that passes descriptors.
//!
//! A frame is a 4-byte little-endian length and that many bytes of JSON; descriptors arrive with the frame's first byte.
//! gRPC was rejected here: it cannot carry descriptors, and a second HTTP/2 stack in the keeper is attack surface.

mod async_channel;
mod blocking;
mod codec;
mod fds;
pub mod sys;

pub use async_channel::{Channel, Receiver, Sender};
pub use blocking::BlockingChannel;
pub use codec::{MAX_FDS, MAX_FRAME};
pub use fds::{cloexec_pair, stdin_channel};

/// What can go wrong on a channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The peer closed its end.
    #[error("the other process closed the channel")]
    Closed,
    /// A frame longer than [`MAX_FRAME`].
    #[error("frame of {0} bytes is larger than the {MAX_FRAME} bytes a channel carries")]
    TooLarge(usize),
    /// More descriptors than [`MAX_FDS`], or fewer than the message needs.
    #[error("a frame carried an unexpected number of descriptors")]
    Descriptors,
    /// The payload is not the expected message.
    #[error("malformed message on a channel: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The socket failed.
    #[error("channel i/o: {0}")]
    Io(#[from] std::io::Error),
}

impl From<rustix::io::Errno> for ChannelError {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Io(e.into())
    }
}
