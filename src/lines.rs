//! Lines on their way out, to stdout or stderr: through a bounded queue to a
//! thread that writes. Whoever has something to say never waits for whoever
//! reads it: when the queue is full, the line is dropped and counted.

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

/// How long the writer rests after it has written all there was. Lines that
/// come meanwhile share one system call and wake nobody.
const REST: Duration = Duration::from_millis(10);

/// The near end of the queue. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<Counter>,
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// Everything before it has been written when the other end hears of it.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the writer. It ends, with everything written, once the last
    /// `Lines` is dropped.
    pub fn start(
        name: &str,
        out: impl Write + Send + 'static,
        dropped: Arc<Counter>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, lines) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(&lines, out))?;
        Ok((Self { queue, dropped }, writer))
    }

    /// Says a line, with its end.
    pub fn say(&self, line: String) {
        // Full, or nobody writes any more.
        if self.queue.try_send(Message::Line(line)).is_err() {
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

fn write_all(queue: &Receiver<Message>, mut out: impl Write) {
    let mut buffer = Vec::new();
    let mut flushed = Vec::new();
    while let Ok(first) = queue.recv() {
        for message in std::iter::once(first).chain(queue.try_iter()) {
            match message {
                Message::Line(line) => buffer.extend_from_slice(line.as_bytes()),
                Message::Flush(done) => flushed.push(done),
            }
        }
        // Nobody reads any more; all else goes on without.
        if out.write_all(&buffer).and_then(|()| out.flush()).is_err() {
            return;
        }
        buffer.clear();
        for done in flushed.drain(..) {
            // Whoever asked may have stopped waiting.
            done.try_send(()).ok();
        }
        std::thread::sleep(REST);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn everything_said_is_written_before_the_writer_ends() {
        let (end, out) = io::pipe().unwrap();
        let (lines, writer) = Lines::start("test", out, Arc::default()).unwrap();
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
        let lines = Lines {
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
        let (lines, writer) = Lines::start("test", out, Arc::clone(&dropped)).unwrap();
        lines.say("first\n".into());
        writer.join().unwrap();
        lines.say("second\n".into());
        lines.flush(Duration::from_secs(5));
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn a_flush_returns_when_what_was_said_is_out() {
        let (end, out) = io::pipe().unwrap();
        let (lines, _writer) = Lines::start("test", out, Arc::default()).unwrap();
        lines.say("said\n".into());
        lines.flush(Duration::from_secs(5));
        let mut line = String::new();
        BufReader::new(end).read_line(&mut line).unwrap();
        assert_eq!(line, "said\n");
    }
}
