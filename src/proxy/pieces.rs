//! Bytes on their way out: what is small goes out in one piece, what is large
//! is not copied.

use std::{
    future::poll_fn,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Poll, ready},
};

use tokio::io::AsyncWrite;

use super::watch::{Waiting, Watch};

/// Up to here a copy costs less than the kernel's look at another slice.
const COPIED: usize = 4 * 1024;

/// Whom bytes go to, and who has to know whether they are taken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taker<'a> {
    Client(&'a Watch),
    Server(&'a Watch),
}

impl Taker<'_> {
    fn note<T>(self, written: &Poll<T>) {
        match (self, written) {
            (Self::Client(watch), Poll::Pending) => watch.write_blocked(),
            (Self::Client(watch), Poll::Ready(_)) => watch.wrote(),
            // Whoever waits for its answer waits anew: it is not idle.
            (Self::Server(watch), Poll::Ready(_)) => watch.arrived(Waiting::Server),
            (Self::Server(_), Poll::Pending) => {}
        }
    }
}

/// Writes `first`, `piece` and `last`, one behind the other, and empties
/// `first`.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    to: &mut W,
    first: &mut Vec<u8>,
    piece: &[u8],
    last: &[u8],
    taker: Taker<'_>,
) -> io::Result<()> {
    let copied = piece.len() <= COPIED && !first.is_empty();
    if copied {
        first.extend_from_slice(piece);
        first.extend_from_slice(last);
    }
    let (piece, last) = if copied {
        (&[][..], &[][..])
    } else {
        (piece, last)
    };
    let mut slices = [first.as_slice(), piece, last].map(IoSlice::new);
    write_slices(to, &mut slices, taker).await?;
    first.clear();
    Ok(())
}

async fn write_slices<W: AsyncWrite + Unpin>(
    to: &mut W,
    mut slices: &mut [IoSlice<'_>],
    taker: Taker<'_>,
) -> io::Result<()> {
    // Leaves out those that are empty.
    IoSlice::advance_slices(&mut slices, 0);
    poll_fn(move |cx| {
        while let [first, more @ ..] = &*slices {
            let mut to = Pin::new(&mut *to);
            let written = if more.iter().all(|slice| slice.is_empty()) {
                to.as_mut().poll_write(cx, first)
            } else {
                to.as_mut().poll_write_vectored(cx, slices)
            };
            taker.note(&written);
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            IoSlice::advance_slices(&mut slices, written);
        }
        let flushed = Pin::new(&mut *to).poll_flush(cx);
        if flushed.is_pending() {
            taker.note(&flushed);
        }
        flushed
    })
    .await
}
