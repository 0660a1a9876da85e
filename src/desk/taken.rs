//! A connection whose peer has to take what it is sent.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::places::Place;

/// How long a peer may take nothing of what it is sent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that fails when its peer has taken nothing for [`PATIENCE`];
/// as long as it does, its place knows that it is not silent.
#[derive(Debug)]
pub(crate) struct Taken<S> {
    stream: S,
    place: Place,
    /// Runs while the peer takes nothing.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Taken<S> {
    /// A connection that has that place.
    pub(crate) fn new(stream: S, place: Place) -> Self {
        let waits = None;
        Self {
            stream,
            place,
            waits,
        }
    }

    /// What comes of a write, in time.
    fn in_time(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waits = None;
            self.place.heard();
            return written;
        }
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        waits
            .as_mut()
            .poll(context)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.in_time(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;
    use crate::desk::places::Places;

    #[tokio::test(start_paused = true)]
    async fn a_peer_may_be_slow_but_has_to_take_something_in_time() {
        let (mut ours, theirs) = tokio::io::duplex(4);
        let place = Places::new(1).admit(None).await;
        let mut taken = Taken::new(theirs, place);
        let writing = tokio::spawn(async move { taken.write_all(&[0; 64]).await });
        let begun = Instant::now();
        for _ in 0..5 {
            sleep(PATIENCE / 2).await;
            ours.read_exact(&mut [0; 4]).await.unwrap();
        }
        let last = begun.elapsed();
        let outcome = writing.await.unwrap().unwrap_err();
        assert_eq!(outcome.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), last + PATIENCE);
    }
}
