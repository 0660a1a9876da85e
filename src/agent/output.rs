//! What the app says, on its way to syslog and to where it would have gone
//! without that.
//!
//! The app writes into a pipe that is always read, so it never waits for
//! whoever reads the agent's output, or for the network.

use std::{
    io::{self, Read, Write},
    process::{ChildStderr, ChildStdout},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::warn;

use crate::syslog::{Facility, LARGEST, Message, Origin, Severity, Syslog};

/// Bytes of each stream that may wait for whoever reads the agent's output.
const WAITING_MOST: usize = 4 * 1024 * 1024;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// Both streams of an app.
#[derive(Debug, Clone)]
pub(super) struct Output {
    syslog: Syslog,
    server: Arc<str>,
    stdout: Arc<Relay>,
    stderr: Arc<Relay>,
}

impl Output {
    /// Streams of the app that is known as `server`.
    pub(super) fn start(syslog: Syslog, server: &str) -> io::Result<Self> {
        Ok(Self {
            syslog,
            server: server.into(),
            stdout: Relay::start("stdout", io::stdout())?,
            stderr: Relay::start("stderr", io::stderr())?,
        })
    }

    /// Reads what a process says until nobody can say anything there any more.
    pub(super) fn follow(
        &self,
        pid: u32,
        stdout: ChildStdout,
        stderr: ChildStderr,
    ) -> io::Result<()> {
        let origin = Origin {
            facility: Facility::Daemon,
            app: Arc::clone(&self.server),
            pid,
            ..self.syslog.origin.clone()
        };
        self.read(&self.stdout, stdout, Severity::Informational, &origin)?;
        self.read(&self.stderr, stderr, Severity::Error, &origin)
    }

    /// Waits until all has been passed on, but no longer than `limit`: what
    /// the app has started may still be there, and there may be nobody who
    /// reads.
    pub(super) fn finish(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.stdout.finish(deadline);
        self.stderr.finish(deadline);
    }

    fn read(
        &self,
        relay: &Arc<Relay>,
        stream: impl Read + Send + 'static,
        severity: Severity,
        origin: &Origin,
    ) -> io::Result<()> {
        let origin = origin.clone();
        let lines = self.syslog.lines.clone();
        // MSGID.
        let kind = relay.name;
        let say = move |text: Vec<u8>| {
            lines.say(Message {
                origin: origin.clone(),
                severity,
                kind,
                at: SystemTime::now(),
                text,
            });
        };
        let reader = relay.begin();
        thread::Builder::new()
            .name("app-output".to_owned())
            .spawn(move || read_all(stream, &reader.0, say))?;
        Ok(())
    }
}

fn read_all(mut stream: impl Read, relay: &Relay, mut say: impl FnMut(Vec<u8>)) {
    let mut lines = Splitter::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(_) | Ok(0) => break,
            Ok(read) => {
                let bytes = chunk.get(..read).unwrap_or_default();
                relay.pass_on(bytes);
                lines.feed(bytes, &mut say);
            }
        }
    }
    lines.end(&mut say);
}

/// Cuts a stream into lines, and long lines short.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    fn feed(&mut self, bytes: &[u8], say: &mut impl FnMut(Vec<u8>)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // More than a datagram holds is of no use.
            let room = LARGEST.saturating_sub(self.line.len());
            let kept = part.strip_suffix(b"\n").unwrap_or(part);
            self.line.extend(kept.iter().take(room));
            if part.ends_with(b"\n") {
                self.end(say);
            }
        }
    }

    fn end(&mut self, say: &mut impl FnMut(Vec<u8>)) {
        let mut line = std::mem::take(&mut self.line);
        if line.ends_with(b"\r") {
            line.pop();
        }
        if !line.is_empty() {
            say(line);
        }
    }
}

/// Passes bytes on as they are, in their order, through a bounded buffer.
#[derive(Debug)]
struct Relay {
    name: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Something is being written.
    busy: bool,
    /// Nobody reads any more.
    closed: bool,
    /// Bytes were dropped, and nothing has been taken since.
    overflows: bool,
    readers: usize,
}

/// Counted as one who may still pass something on.
struct Reader(Arc<Relay>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.lock().readers -= 1;
        self.0.changed.notify_all();
    }
}

impl Relay {
    fn start(name: &'static str, out: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let relay = Arc::new(Self {
            name,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let writing = Arc::clone(&relay);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || writing.write_all(out))?;
        Ok(relay)
    }

    fn begin(self: &Arc<Self>) -> Reader {
        self.lock().readers += 1;
        Reader(Arc::clone(self))
    }

    fn pass_on(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.waiting.len() + bytes.len() > WAITING_MOST {
            let told = std::mem::replace(&mut state.overflows, true);
            drop(state);
            if !told {
                let name = self.name;
                warn!("nobody reads the agent's {name}: what the app says there is dropped");
            }
            return;
        }
        state.overflows = false;
        state.waiting.extend_from_slice(bytes);
        drop(state);
        self.changed.notify_all();
    }

    fn write_all(&self, mut out: impl Write) {
        let mut bytes = Vec::new();
        loop {
            let state = self.lock();
            let there = self
                .changed
                .wait_while(state, |state| state.waiting.is_empty());
            let mut state = there.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut state.waiting, &mut bytes);
            state.busy = true;
            drop(state);
            let written = out.write_all(&bytes).and_then(|()| out.flush());
            bytes.clear();
            let mut state = self.lock();
            state.busy = false;
            state.closed = written.is_err();
            drop(state);
            self.changed.notify_all();
            if written.is_err() {
                return;
            }
        }
    }

    fn finish(&self, deadline: Instant) {
        let limit = deadline.saturating_duration_since(Instant::now());
        let at_work = |state: &mut State| {
            state.readers > 0 || (!state.closed && (state.busy || !state.waiting.is_empty()))
        };
        // Whoever waited too long goes on all the same.
        let waited = self.changed.wait_timeout_while(self.lock(), limit, at_work);
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut said = Vec::new();
        let mut say = |line: Vec<u8>| said.push(String::from_utf8_lossy(&line).into_owned());
        let mut lines = Splitter::default();
        for chunk in chunks {
            lines.feed(chunk, &mut say);
        }
        lines.end(&mut say);
        said
    }

    #[test]
    fn a_line_ends_where_it_ends_however_it_arrives() {
        assert_eq!(
            split(&[b"one\ntw", b"o\r\n\n", b"\nthree"]),
            ["one", "two", "three"]
        );
        assert!(split(&[b"\n\n", b""]).is_empty());
    }

    #[test]
    fn a_long_line_is_one_line_cut_short() {
        let long = vec![b'x'; 10 * LARGEST];
        let said = split(&[&long, &long, b"\nnext\n"]);
        assert_eq!(said.len(), 2);
        assert_eq!(said[0].len(), LARGEST);
        assert_eq!(said[1], "next");
    }

    #[test]
    fn bytes_are_passed_on_as_they_are() {
        let (mut end, out) = io::pipe().unwrap();
        let relay = Relay::start("stdout", out).unwrap();
        let said: Vec<u8> = (0..=u8::MAX).cycle().take(1_000_000).collect();
        let expected = said.clone();
        let reader = relay.begin();
        let reading = thread::spawn(move || read_all(&*said, &reader.0, |_| {}));
        let mut heard = vec![0; expected.len()];
        end.read_exact(&mut heard).unwrap();
        reading.join().unwrap();
        assert!(heard == expected, "not what was said");
        relay.finish(Instant::now() + Duration::from_secs(10));
        assert!(relay.lock().waiting.is_empty());
    }

    #[test]
    fn nobody_who_speaks_waits_for_one_who_does_not_read() {
        let (end, out) = io::pipe().unwrap();
        let relay = Relay::start("stdout", out).unwrap();
        let flood = vec![b'x'; CHUNK];
        for _ in 0..2 * WAITING_MOST / CHUNK {
            relay.pass_on(&flood);
        }
        assert!(relay.lock().waiting.len() <= WAITING_MOST);
        assert!(relay.lock().overflows);
        relay.finish(Instant::now());
        drop(end);
    }

    #[test]
    fn a_reader_that_went_away_is_forgotten() {
        let (end, out) = io::pipe().unwrap();
        drop(end);
        let relay = Relay::start("stdout", out).unwrap();
        relay.pass_on(b"first");
        relay.finish(Instant::now() + Duration::from_secs(10));
        relay.pass_on(b"second");
        assert!(relay.lock().waiting.is_empty());
    }
}
