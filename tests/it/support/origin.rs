//! A server that does exactly as its test says, down to the byte, and keeps
//! exactly what it was sent.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use super::{cluster::Balancer, eventually};

/// How a request is answered.
type Script = dyn Fn(&mut Visit) -> io::Result<()> + Send + Sync;

/// A running server; its connections end with it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

/// A request as it came over the wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Which of the connections that brought a request, in their order.
    pub(crate) connection: usize,
    /// Its head with the empty line.
    pub(crate) head: String,
    /// As much of its body as the script read, with its framing.
    pub(crate) body: Vec<u8>,
}

/// A request whose head is there, to be answered.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The request's number, from 0.
    pub(crate) index: usize,
    stream: Arc<TcpStream>,
    read: Vec<u8>,
    shared: Arc<Shared>,
    body_read: bool,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: Mutex<Vec<Weak<TcpStream>>>,
    ended: AtomicBool,
}

impl Origin {
    /// Starts one that answers every request as `script` does. An error that
    /// it returns ends the connection.
    pub(crate) fn start(
        script: impl Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting, &Arc::new(script)));
        Self { addr, shared }
    }

    /// Starts one that reads every request whole and answers with these bytes.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |visit| {
            visit.body()?;
            visit.send(&answer)
        })
    }

    /// Starts one that answers every request with 200 and this text.
    pub(crate) fn saying(text: &str) -> Self {
        Self::answering(ok(text))
    }

    /// `--server`'s value for it, without checks that would visit it as well.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{name}={},check=off", self.addr)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The only request so far.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        let [seen] = <[Seen; 1]>::try_from(self.seen()).expect("exactly one request");
        seen
    }

    /// How many connections brought requests.
    pub(crate) fn connections(&self) -> usize {
        let seen = self.seen();
        let all: BTreeSet<usize> = seen.iter().map(|seen| seen.connection).collect();
        all.len()
    }

    /// Waits until that many requests have come.
    #[track_caller]
    pub(crate) fn wait_for(&self, requests: usize) {
        eventually("the request reaches the server", || {
            (self.seen().len() >= requests).then_some(())
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        // Wakes the accepting thread; it may be gone with its listener.
        TcpStream::connect(self.addr).ok();
        for stream in self.shared.open.lock().unwrap().iter() {
            if let Some(stream) = stream.upgrade() {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
    }
}

impl Seen {
    /// The values of the fields of that name, in their order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let fields = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The first line.
    pub(crate) fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The body without its framing.
    #[track_caller]
    pub(crate) fn content(&self) -> Vec<u8> {
        if self.values("transfer-encoding").is_empty() {
            return self.body.clone();
        }
        let mut content = Vec::new();
        let mut rest = self.body.as_slice();
        loop {
            let line = find(rest, b"\r\n").expect("a chunk's size");
            let size = std::str::from_utf8(&rest[..line]).expect("a size in ASCII");
            let size = usize::from_str_radix(size, 16).expect("a size in hex");
            if size == 0 {
                return content;
            }
            content.extend_from_slice(&rest[line + 2..line + 2 + size]);
            assert_eq!(&rest[line + 2 + size..line + 4 + size], b"\r\n");
            rest = &rest[line + 4 + size..];
        }
    }
}

impl Visit {
    /// The request so far.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap()[self.index].clone()
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        (&*self.stream).write_all(bytes.as_ref())
    }

    /// Reads the body to its end.
    pub(crate) fn body(&mut self) -> io::Result<()> {
        self.body_read = true;
        let seen = self.seen();
        if let Some(length) = seen.values("content-length").first() {
            let length: usize = length.parse().expect("a length");
            while self.seen().body.len() < length {
                self.more(length - self.seen().body.len())?;
            }
        } else if !seen.values("transfer-encoding").is_empty() {
            while find(&self.seen().body, b"0\r\n").is_none()
                || !self.seen().body.ends_with(b"\r\n\r\n")
            {
                self.more(usize::MAX)?;
            }
        }
        Ok(())
    }

    /// The body as a stream, of which nothing is kept. It must be read to its
    /// end.
    pub(crate) fn raw_body(&mut self) -> impl Read {
        self.body_read = true;
        io::Cursor::new(std::mem::take(&mut self.read)).chain(&*self.stream)
    }

    /// Reads some bytes of no known framing.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        if !self.read.is_empty() {
            return Ok(std::mem::take(&mut self.read));
        }
        let mut chunk = vec![0; 64 * 1024];
        let read = (&*self.stream).read(&mut chunk)?;
        chunk.truncate(read);
        Ok(chunk)
    }

    /// Closes in the ordinary way.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Both)
    }

    /// Ends the connection as a process that dies in the middle of it does.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        let now = Some(Duration::ZERO);
        socket2::SockRef::from(&*self.stream).set_linger(now)?;
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn more(&mut self, most: usize) -> io::Result<()> {
        if self.read.is_empty() {
            self.read = self.read()?;
            if self.read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let taken = self.read.len().min(most);
        let bytes = self.read.drain(..taken);
        self.shared.seen.lock().unwrap()[self.index]
            .body
            .extend(bytes);
        Ok(())
    }
}

/// 200 with this text.
pub(crate) fn ok(text: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
}

/// A gate for a script to wait at until the test opens it, or ends.
pub(crate) fn gate() -> (Sender<()>, Gate) {
    let (open, gate) = channel();
    (open, Gate(Mutex::new(gate)))
}

/// See [`gate`].
#[derive(Debug)]
pub(crate) struct Gate(Mutex<Receiver<()>>);

impl Gate {
    /// Waits.
    pub(crate) fn wait(&self) {
        self.0.lock().unwrap().recv().ok();
    }
}

/// A balancer in front of these, named s1, s2 and so on.
pub(crate) fn balancer_over(origins: &[&Origin], flags: &[&str]) -> Balancer {
    let servers: Vec<String> = origins
        .iter()
        .zip(1..)
        .map(|(origin, number)| origin.named(&format!("s{number}")))
        .collect();
    let mut all: Vec<&str> = flags.to_vec();
    for server in &servers {
        all.extend(["--server", server]);
    }
    Balancer::start(&all)
}

fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    script: &Arc<impl Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static>,
) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.ended.load(Relaxed) {
            return;
        }
        stream.set_nodelay(true).ok();
        let stream = Arc::new(stream);
        shared.open.lock().unwrap().push(Arc::downgrade(&stream));
        let (shared, script) = (Arc::clone(shared), Arc::clone(script));
        // It ends with an error, the peer's close or the server's end.
        thread::spawn(move || serve(&stream, &shared, &*script).ok());
    }
}

fn serve(stream: &Arc<TcpStream>, shared: &Arc<Shared>, script: &Script) -> io::Result<()> {
    let mut connection = None;
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = find(&read, b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = [0; 16 * 1024];
            match (&**stream).read(&mut chunk)? {
                0 => return Ok(()),
                more => read.extend_from_slice(&chunk[..more]),
            }
        };
        let head: Vec<u8> = read.drain(..end).collect();
        // A probe connects as well, but asks nothing.
        let connection =
            *connection.get_or_insert_with(|| shared.connections.fetch_add(1, Relaxed));
        let index = {
            let mut seen = shared.seen.lock().unwrap();
            seen.push(Seen {
                connection,
                head: String::from_utf8_lossy(&head).into_owned(),
                body: Vec::new(),
            });
            seen.len() - 1
        };
        let mut visit = Visit {
            index,
            stream: Arc::clone(stream),
            read: std::mem::take(&mut read),
            shared: Arc::clone(shared),
            body_read: false,
        };
        script(&mut visit)?;
        if !visit.body_read {
            visit.body()?;
        }
        read = visit.read;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
