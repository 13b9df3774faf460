//! The three kinds of byte streams as one type, and the buffers that heads and bodies pass through.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use ringfence_tls::{client, server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::frames::{Fault, Follow};

/// Bytes read at once. One TLS record fits.
pub(crate) const READ: usize = 16 * 1024;

/// A socket under TLS. Records mostly go out one at a time, and to the kernel a `send` is cheaper than a `writev` of one.
#[derive(Debug)]
pub(crate) struct Socket(pub(crate) TcpStream);

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bytes {
            [one] => Pin::new(&mut self.0).poll_write(cx, one),
            _ => Pin::new(&mut self.0).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A connection, plain or TLS.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Server(Box<server::TlsStream<Socket>>),
    Client(Box<client::TlsStream<Socket>>),
}

impl Io {
    /// Whether bytes may lie in a buffer of the stream's own and need a flush.
    pub(crate) fn buffers(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Writes all of `bytes` from `at` on; pending keeps `at`.
    pub(crate) fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        at: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *at < bytes.len() {
            match ready!(Pin::new(&mut *self).poll_write(cx, &bytes[*at..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => *at += n,
            }
        }
        if self.buffers() { Pin::new(self).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Reads once, appending to `buffer`; 0 is the end. A buffer is only held while it has something in it.
    pub(crate) fn poll_read_more(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if buffer.capacity() - buffer.len() >= READ / 4 {
            return pin!(self.read_buf(buffer)).poll(cx);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(self).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            buffer.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        })
    }
}

thread_local! {
    /// Where bytes of connections land that hold no buffer of their own.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Server(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Client(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Server(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Client(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bytes),
            Self::Server(io) => Pin::new(io).poll_write_vectored(cx, bytes),
            Self::Client(io) => Pin::new(io).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Server(io) => Pin::new(io).poll_flush(cx),
            Self::Client(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Server(io) => Pin::new(io).poll_shutdown(cx),
            Self::Client(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Bytes that are gathered before they are written. They fill one TLS record.
const GATHERED: usize = 16 * 1024;

/// A stream that an HTTP/2 connection is served on. Some bytes were read before it was known what they are.
///
/// The `h2` crate writes and flushes after every frame of a body. Here a flush of its only notes that; what the frames of
/// all streams came to is written by [`Gather::poll_flush`] when the connection's task has nothing left to do: one record
/// and one system call for what one wake-up brought.
#[derive(Debug, Clone)]
pub(crate) struct Gather(Rc<RefCell<Gathering>>);

#[derive(Debug)]
struct Gathering {
    head: BytesMut,
    io: Io,
    out: Vec<u8>,
    at: usize,
    /// Who counts what a client sends; whom we are the client of is not counted.
    follow: Option<Follow>,
}

thread_local! {
    /// The buffer that is gathered in, while no connection has something in it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Gather {
    /// For a connection of ours.
    pub(crate) fn new(head: BytesMut, io: Io) -> Self {
        Self::of(head, io, None)
    }

    /// For a client's connection, whose frames are counted.
    pub(crate) fn of_client(head: BytesMut, io: Io) -> Self {
        Self::of(head, io, Some(Follow::default()))
    }

    fn of(head: BytesMut, io: Io, follow: Option<Follow>) -> Self {
        Self(Rc::new(RefCell::new(Gathering { head, io, out: Vec::new(), at: 0, follow })))
    }

    /// Writes what was gathered. Whoever polls the connection calls this before it is pending.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        ready!(gathering.poll_empty(cx))?;
        Pin::new(&mut gathering.io).poll_flush(cx)
    }

    /// Why nothing more is read from the client.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.borrow().follow.as_ref().and_then(Follow::fault)
    }

    /// Whether the client has begun a frame or a header block and not ended it.
    pub(crate) fn is_within(&self) -> bool {
        self.0.borrow().follow.as_ref().is_some_and(Follow::is_within)
    }

    /// Time went by.
    pub(crate) fn earn(&self, frames: u32) {
        if let Some(follow) = &mut self.0.borrow_mut().follow {
            follow.earn(frames);
        }
    }

    /// Reads and throws away, so that a client that still sends comes to see what it was told.
    pub(crate) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, &mut read))?;
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Polls `future`, which uses the connection, and writes what it gathered.
    pub(crate) async fn flushing<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            // An error is met again by the next read or write.
            let _ = self.poll_flush(cx);
            polled
        })
        .await
    }
}

impl Gathering {
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.io.poll_write_all(cx, &self.out, &mut self.at))?;
        self.at = 0;
        if let Some(follow) = &mut self.follow {
            follow.moved(self.out.len());
        }
        self.out.clear();
        SPARE.set(std::mem::take(&mut self.out));
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.out.len() + len > GATHERED {
            ready!(self.poll_empty(cx))?;
            if len > GATHERED {
                return Pin::new(&mut self.io).poll_write_vectored(cx, slices);
            }
        }
        if self.out.capacity() == 0 {
            self.out = SPARE.take();
            self.out.reserve(GATHERED);
        }
        slices.iter().for_each(|slice| self.out.extend_from_slice(slice));
        Poll::Ready(Ok(len))
    }
}

impl AsyncRead for Gather {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gathering = &mut *self.0.borrow_mut();
        if gathering.follow.as_ref().is_some_and(|follow| follow.fault().is_some()) {
            // Whoever polls the connection looks whether it is, and ends it.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if gathering.head.is_empty() {
            ready!(Pin::new(&mut gathering.io).poll_read(cx, buffer))?;
        } else {
            let n = gathering.head.len().min(buffer.remaining());
            buffer.put_slice(&gathering.head.split_to(n));
        }
        let Some(follow) = &mut gathering.follow else { return Poll::Ready(Ok(())) };
        follow.read(&buffer.filled()[before..]);
        match follow.fault() {
            None | Some(Fault::Worn) => Poll::Ready(Ok(())),
            // `h2` is not to see what is wrong.
            Some(_) => {
                buffer.set_filled(before);
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Gather {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        ready!(gathering.poll_empty(cx))?;
        Pin::new(&mut gathering.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn frames_wait_for_the_end_of_the_turn_and_keep_their_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut far = listener.accept().await.unwrap().0;
        let mut gather = Gather::new(BytesMut::from("read before"), Io::Plain(near));
        let mut before = [0; 11];
        gather.read_exact(&mut before).await.unwrap();
        assert_eq!(&before, b"read before");

        gather.write_all(b"one ").await.unwrap();
        gather.write_all(b"two ").await.unwrap();
        gather.flush().await.unwrap();
        let mut first = [0; 16];
        tokio::time::timeout(Duration::from_millis(50), far.read(&mut first)).await.unwrap_err();
        std::future::poll_fn(|cx| Gather::poll_flush(&gather, cx)).await.unwrap();
        let n = far.read(&mut first).await.unwrap();
        assert_eq!(&first[..n], b"one two ");

        let long = vec![b'x'; 3 * GATHERED];
        gather.write_all(b"three ").await.unwrap();
        let (_, rest) = tokio::join!(
            async {
                gather.write_all(&long).await.unwrap();
                gather.write_all(b" four").await.unwrap();
                gather.shutdown().await.unwrap();
            },
            async {
                let mut rest = Vec::new();
                far.read_to_end(&mut rest).await.unwrap();
                rest
            }
        );
        assert_eq!(rest, [b"three ", &long[..], b" four"].concat());
    }
}
