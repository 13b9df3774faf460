//! The channel for processes without a runtime: keeper, shim, init.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{HEADER, decode, encode, frame_length};
use crate::fds::{recv_with_fds, send_with_fds};
use crate::{Channel, ChannelError};

/// A blocking channel that sends `Out` and receives `In`.
#[derive(Debug)]
pub struct BlockingChannel<Out, In> {
    socket: UnixStream,
    _types: PhantomData<fn(Out) -> In>,
}

impl<Out: Serialize, In: DeserializeOwned> BlockingChannel<Out, In> {
    /// Wraps a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, _types: PhantomData }
    }

    /// Sends one message with the descriptors it speaks of. Blocks while the peer's buffer is full.
    pub fn send(&self, message: &Out, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let frame = encode(message)?;
        let mut sent = send_with_fds(self.socket.as_fd(), &frame, fds)?;
        while sent < frame.len() {
            sent += send_with_fds(self.socket.as_fd(), &frame[sent..], &[])?;
        }
        Ok(())
    }

    /// Receives one message and its descriptors. [`ChannelError::Closed`] at a clean end.
    pub fn recv(&self) -> Result<(In, Vec<OwnedFd>), ChannelError> {
        let mut fds = Vec::new();
        let mut header = [0; HEADER];
        self.fill(&mut header, &mut fds, true)?;
        // The header is complete, so a length is there.
        let Some(length) = frame_length(&header)? else { return Err(ChannelError::Closed) };
        let mut payload = vec![0; length - HEADER];
        self.fill(&mut payload, &mut fds, false)?;
        Ok((decode(&payload)?, fds))
    }

    /// Bounds each wait of [`Self::recv`]; `None` waits for ever.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ChannelError> {
        Ok(self.socket.set_read_timeout(timeout)?)
    }

    /// A second handle, for a thread that only sends or only receives.
    pub fn try_clone(&self) -> Result<Self, ChannelError> {
        Ok(Self::new(self.socket.try_clone()?))
    }

    /// The socket, for polling.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Turns this into an async channel. Must be called inside a tokio runtime.
    pub fn into_async(self) -> Result<Channel<Out, In>, ChannelError> {
        Channel::new(self.socket)
    }

    fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, at_start: bool) -> Result<(), ChannelError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match recv_with_fds(self.socket.as_fd(), &mut buffer[filled..], fds) {
                Ok(0) if at_start && filled == 0 => return Err(ChannelError::Closed),
                Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => filled += n,
                Err(ChannelError::Io(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (BlockingChannel::<String, String>::new(a), BlockingChannel::<String, String>::new(b));
        let (mut reader, writer) = std::io::pipe().unwrap();
        a.send(&"take".into(), &[writer.as_fd()]).unwrap();
        drop(writer);
        a.send(&"x".repeat(1000), &[]).unwrap();
        let (text, fds) = b.recv().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("take", 1));
        std::fs::File::from(fds.into_iter().next().unwrap()).write_all(b"hello").unwrap();
        let mut got = String::new();
        reader.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello");
        assert_eq!(b.recv().unwrap().0.len(), 1000);
        drop(a);
        assert!(matches!(b.recv(), Err(ChannelError::Closed)));
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_read() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(BlockingChannel::<String, String>::new(b).recv(), Err(ChannelError::TooLarge(_))));
    }
}
