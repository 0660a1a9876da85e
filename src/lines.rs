//! Lines on their way out, to stdout, stderr or elsewhere: through a bounded
//! queue to a thread that writes. Whoever has something to say never waits for
//! whoever reads it: when the queue is full, the line is dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

use crate::counters::Counter;

/// Lines that may wait for the writer: at 200 bytes a line some 13 MB, or
/// half a second of the fastest traffic that was ever measured here.
const QUEUE: usize = 65_536;

/// Lines that are written at a time: some 200 KB.
const BATCH: usize = 1024;

/// How long the writer rests after it has written all there was. Lines that
/// come meanwhile share one system call and wake nobody.
const REST: Duration = Duration::from_millis(10);

/// The near end of the queue. Cloning it is cheap.
///
/// What goes through it may be a line, or what a line is made of: then it is
/// made by the writer's thread.
#[derive(Debug)]
pub struct Lines<T = String> {
    queue: SyncSender<Message<T>>,
    dropped: Arc<Counter>,
}

#[derive(Debug)]
enum Message<T> {
    Said(T),
    /// Everything before it has been written when the other end hears of it.
    Flush(SyncSender<()>),
}

/// The far end: what becomes of that which was said.
pub trait Out<T> {
    /// Takes one of them. It may wait for [`flush`](Self::flush).
    fn take(&mut self, said: T);

    /// Writes what has been taken. After an error nothing more comes: there
    /// is nobody to write to.
    fn flush(&mut self) -> io::Result<()>;
}

/// Writes lines as they are, many at a time.
#[derive(Debug)]
pub struct Text<W> {
    buffer: Vec<u8>,
    out: W,
}

impl<W: Write> Text<W> {
    /// A writer to `out`.
    pub fn to(out: W) -> Self {
        let buffer = Vec::new();
        Self { buffer, out }
    }

    /// What goes out with the next flush.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes it.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written.and_then(|()| self.out.flush())
    }
}

impl<W: Write> Out<String> for Text<W> {
    fn take(&mut self, line: String) {
        self.buffer.extend_from_slice(line.as_bytes());
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl<T> Clone for Lines<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            dropped: Arc::clone(&self.dropped),
        }
    }
}

impl<T: Send + 'static> Lines<T> {
    /// Starts the writer. It ends, with everything written, once the last
    /// `Lines` is dropped.
    pub fn start(
        name: &str,
        out: impl Out<T> + Send + 'static,
        dropped: Arc<Counter>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, lines) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(&lines, out))?;
        Ok((Self { queue, dropped }, writer))
    }

    /// Says a line, with its end.
    pub fn say(&self, line: T) {
        // Full, or nobody writes any more.
        if self.queue.try_send(Message::Said(line)).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits until everything said so far has been written, but no longer
    /// than `limit`: there may be nobody who reads.
    pub fn flush(&self, limit: Duration) {
        let (done, heard) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            heard.recv_timeout(limit).ok();
        }
    }
}

/// For `tracing`, which writes an event in one go.
impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.say(String::from_utf8_lossy(text).into_owned());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn write_all<T>(queue: &Receiver<Message<T>>, mut out: impl Out<T>) {
    let mut flushed = Vec::new();
    while let Ok(first) = queue.recv() {
        let mut taken = 0;
        for message in std::iter::once(first).chain(queue.try_iter()).take(BATCH) {
            taken += 1;
            match message {
                Message::Said(line) => out.take(line),
                Message::Flush(done) => flushed.push(done),
            }
        }
        // Nobody reads any more; all else goes on without.
        if out.flush().is_err() {
            return;
        }
        for done in flushed.drain(..) {
            // Whoever asked may have stopped waiting.
            done.try_send(()).ok();
        }
        if taken < BATCH {
            std::thread::sleep(REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn everything_said_is_written_before_the_writer_ends() {
        let (end, out) = io::pipe().unwrap();
        let (lines, writer) = Lines::start("test", Text::to(out), Arc::default()).unwrap();
        for number in 0..100 {
            lines.say(format!("{number}\n"));
        }
        drop(lines);
        writer.join().unwrap();
        assert_eq!(BufReader::new(end).lines().count(), 100);
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let (queue, _nobody) = sync_channel(2);
        let dropped = Arc::new(Counter::default());
        let lines: Lines = Lines {
            queue,
            dropped: Arc::clone(&dropped),
        };
        for _ in 0..5 {
            lines.say("line\n".into());
        }
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn a_reader_that_went_away_hurts_nobody() {
        let (end, out) = io::pipe().unwrap();
        drop(end);
        let dropped = Arc::new(Counter::default());
        let (lines, writer) = Lines::start("test", Text::to(out), Arc::clone(&dropped)).unwrap();
        lines.say("first\n".into());
        writer.join().unwrap();
        lines.say("second\n".into());
        lines.flush(Duration::from_secs(5));
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn a_flush_returns_when_what_was_said_is_out() {
        let (end, out) = io::pipe().unwrap();
        let (lines, _writer) = Lines::start("test", Text::to(out), Arc::default()).unwrap();
        lines.say("said\n".into());
        lines.flush(Duration::from_secs(5));
        let mut line = String::new();
        BufReader::new(end).read_line(&mut line).unwrap();
        assert_eq!(line, "said\n");
    }
}
