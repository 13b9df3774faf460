//! The channel for processes with a tokio runtime: control, proxy, supervisor.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::ChannelError;
use crate::codec::{HEADER, decode, encode, frame_length};
use crate::fds::{recv_with_fds, send_with_fds};

/// An async channel that sends `Out` and receives `In`; split it to do both at once.
#[derive(Debug)]
pub struct Channel<Out, In> {
    sender: Sender<Out>,
    receiver: Receiver<In>,
}

/// The sending half.
#[derive(Debug)]
pub struct Sender<Out> {
    socket: Arc<UnixStream>,
    // One frame at a time, whole: two senders never interleave.
    turn: Arc<tokio::sync::Mutex<()>>,
    _out: PhantomData<fn(Out)>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<In> {
    socket: Arc<UnixStream>,
    buffer: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    _in: PhantomData<fn() -> In>,
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    /// Wraps a connected socket. Must be called inside a tokio runtime.
    pub fn new(socket: StdUnixStream) -> Result<Self, ChannelError> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UnixStream::from_std(socket)?);
        Ok(Self {
            sender: Sender { socket: socket.clone(), turn: Arc::default(), _out: PhantomData },
            receiver: Receiver { socket, buffer: Vec::new(), fds: VecDeque::new(), _in: PhantomData },
        })
    }

    /// Sends one message with its descriptors.
    pub async fn send(&self, message: &Out, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.sender.send(message, fds).await
    }

    /// Receives one message and its descriptors. Cancel-safe.
    pub async fn recv(&mut self) -> Result<(In, Vec<OwnedFd>), ChannelError> {
        self.receiver.recv().await
    }

    /// Splits into halves that can live in different tasks.
    pub fn split(self) -> (Sender<Out>, Receiver<In>) {
        (self.sender, self.receiver)
    }
}

impl<Out> Clone for Sender<Out> {
    fn clone(&self) -> Self {
        Self { socket: self.socket.clone(), turn: self.turn.clone(), _out: PhantomData }
    }
}

impl<Out: Serialize> Sender<Out> {
    /// Sends one message with its descriptors. Not cancel-safe: a frame that is cut in half ends the channel, so spawn it.
    pub async fn send(&self, message: &Out, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let frame = encode(message)?;
        let _turn = self.turn.lock().await;
        let mut sent = 0;
        while sent < frame.len() {
            self.socket.writable().await?;
            let fds = if sent == 0 { fds } else { &[] };
            let attempt = self.socket.try_io(Interest::WRITABLE, || {
                send_with_fds(self.socket.as_fd(), &frame[sent..], fds).map_err(into_io)
            });
            match attempt {
                Ok(n) => sent += n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

impl<In: DeserializeOwned> Receiver<In> {
    /// Receives one message and its descriptors. Cancel-safe. [`ChannelError::Closed`] at a clean end.
    pub async fn recv(&mut self) -> Result<(In, Vec<OwnedFd>), ChannelError> {
        loop {
            if let Some(length) = frame_length(&self.buffer)?
                && self.buffer.len() >= length
            {
                let message = decode(&self.buffer[HEADER..length])?;
                // Never more than one frame is read at a time, so these descriptors are this frame's.
                self.buffer.clear();
                return Ok((message, self.fds.drain(..).collect()));
            }
            self.socket.readable().await?;
            self.read_more()?;
        }
    }

    /// Reads at most up to the end of the current frame.
    fn read_more(&mut self) -> Result<(), ChannelError> {
        const STEP: usize = 64 * 1024;
        let start = self.buffer.len();
        let end = frame_length(&self.buffer)?.unwrap_or(HEADER).min(start + STEP);
        self.buffer.resize(end, 0);
        let mut fds = Vec::new();
        let (socket, buffer) = (&self.socket, &mut self.buffer[start..]);
        let attempt = socket
            .try_io(Interest::READABLE, || recv_with_fds(socket.as_fd(), buffer, &mut fds).map_err(into_io));
        self.buffer.truncate(start + attempt.as_ref().copied().unwrap_or(0));
        self.fds.extend(fds);
        match attempt {
            Ok(0) if start == 0 => Err(ChannelError::Closed),
            Ok(0) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

fn into_io(e: ChannelError) -> std::io::Error {
    match e {
        ChannelError::Io(e) => e,
        other => std::io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_larger_than_the_socket_buffer_pass_both_ways_with_their_descriptors() {
        let (a, b) = StdUnixStream::pair().unwrap();
        let a = Channel::<String, String>::new(a).unwrap();
        let mut b = Channel::<String, String>::new(b).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let sending = tokio::spawn(async move {
            a.send(&"y".repeat(3_000_000), &[reader.as_fd()]).await.unwrap();
            a.send(&"next".into(), &[]).await.unwrap();
        });
        let (text, fds) = b.recv().await.unwrap();
        assert_eq!((text.len(), fds.len()), (3_000_000, 1));
        let (text, fds) = b.recv().await.unwrap();
        assert_eq!((text.as_str(), fds.len()), ("next", 0));
        sending.await.unwrap();
        assert!(matches!(b.recv().await, Err(ChannelError::Closed)));
    }
}
