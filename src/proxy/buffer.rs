//! Buffers that bytes are read into: lent for as long as something is in
//! them. A connection that waits for its peer has none.

use std::{
    cell::RefCell,
    fmt, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// What is read at a time, and the largest request head.
pub(super) const SMALL: usize = 16 * 1024;

/// What is read at a time of a body that is larger than that.
pub(super) const LARGE: usize = 128 * 1024;

/// Buffers that are kept for the next to come, of each size.
const KEPT: usize = 32;

/// One worker's unused buffers.
#[derive(Default)]
pub(super) struct Buffers {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
}

impl Buffers {
    fn lend(&self, size: usize) -> Box<[u8]> {
        let unused = self.of(size).borrow_mut().pop();
        unused.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        let mut unused = self.of(bytes.len()).borrow_mut();
        if unused.len() < KEPT {
            unused.push(bytes);
        }
    }

    fn of(&self, size: usize) -> &RefCell<Vec<Box<[u8]>>> {
        if size > SMALL {
            &self.large
        } else {
            &self.small
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

/// What was read from a socket and not been used yet.
pub(super) struct Buffer {
    home: Rc<Buffers>,
    /// Empty while nothing is in it.
    bytes: Box<[u8]>,
    /// How much may be in it.
    size: usize,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Nothing, and no memory for it yet.
    pub(super) fn new(home: &Rc<Buffers>) -> Self {
        Self {
            home: Rc::clone(home),
            bytes: Box::default(),
            size: SMALL,
            start: 0,
            end: 0,
        }
    }

    /// What is there.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// What is there, to be decoded in place.
    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Whether nothing is there.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether nothing more can be read into it.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start >= self.size
    }

    /// The first bytes were used. With the last of them the memory goes.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        if self.is_empty() {
            self.release();
        }
    }

    /// Much is to be expected: reads more at a time from now on.
    pub(super) fn enlarge(&mut self) {
        self.size = LARGE;
        if self.bytes.is_empty() || self.bytes.len() == LARGE {
            return;
        }
        let mut larger = self.home.lend(LARGE);
        let filled = self.filled();
        let there = filled.len();
        if let Some(front) = larger.get_mut(..there) {
            front.copy_from_slice(filled);
        }
        self.release();
        self.bytes = larger;
        self.end = there;
    }

    /// Much has come, and no more is to be expected.
    pub(super) fn settle(&mut self) {
        self.size = SMALL;
    }

    /// Reads once. `0` is the end of the stream; there must be room.
    pub(super) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        if self.bytes.is_empty() {
            self.bytes = self.home.lend(self.size);
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= mem::take(&mut self.start);
        }
        let until = self.bytes.len().min(self.start + self.size);
        let room = self.bytes.get_mut(self.end..until).unwrap_or_default();
        let mut room = ReadBuf::new(room);
        let read = Pin::new(from).poll_read(cx, &mut room);
        let read = match read {
            Poll::Ready(read) => read.map(|()| room.filled().len()),
            Poll::Pending => {
                if self.is_empty() {
                    self.release();
                }
                return Poll::Pending;
            }
        };
        self.end += *read.as_ref().unwrap_or(&0);
        Poll::Ready(read)
    }

    /// Reads once, once there is something.
    pub(super) async fn fill<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
    ) -> std::io::Result<usize> {
        std::future::poll_fn(|cx| Poll::Ready(ready!(self.poll_fill(from, cx)))).await
    }

    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        let bytes = mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.home.give_back(bytes);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Buffer").field(&self.filled().len()).finish()
    }
}
