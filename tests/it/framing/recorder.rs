//! A server that keeps every byte it is sent, and can tell for sure that
//! there is nothing it has not seen.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use rustix::io::ioctl_fionread;

use super::{
    Delivery,
    message::{Body, Message, Trouble},
};

/// How long something may take that must happen. Only a row that fails waits
/// for as long.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A running server.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) addr: SocketAddr,
    shared: Arc<Shared>,
}

/// A whole request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) message: Message,
    connection: usize,
}

/// What came over a connection and is not, or not yet, a request.
#[derive(Debug, Clone)]
pub(super) struct Fragment {
    pub(super) bytes: Vec<u8>,
    pub(super) trouble: Trouble,
    /// Whether the connection has ended behind it.
    pub(super) ended: bool,
}

/// What the target `/` is answered with.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// Whether nothing more comes from the server after it.
    pub(super) closes: bool,
    pub(super) delivery: Delivery,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    connections: Vec<Connection>,
    requests: Vec<Request>,
    answer: Option<Answer>,
    over: bool,
}

#[derive(Debug)]
struct Connection {
    peer: SocketAddr,
    stream: Arc<TcpStream>,
    /// What came behind the last whole request.
    bytes: Vec<u8>,
    trouble: Trouble,
    ended: bool,
}

impl Recorder {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { addr, shared }
    }

    /// Forgets what it has seen, and answers `/` like this from now on; every
    /// other target gets 200 and its own name.
    pub(super) fn begin(&self, answer: Option<Answer>) {
        let mut state = self.shared.state.lock().unwrap();
        state.requests.clear();
        for connection in state.connections.iter_mut().filter(|past| past.ended) {
            connection.bytes.clear();
        }
        state.answer = answer;
    }

    /// Waits until it has read all that was sent to it so far and every
    /// connection with a part of a request on it has ended, or until patience
    /// has. Returns the whole requests since the beginning and those parts.
    pub(super) fn settle(&self) -> (Vec<Request>, Vec<Fragment>) {
        // Connections are accepted in their order: once this one is, all are.
        let last = TcpStream::connect(self.addr).expect("the recorder accepts");
        let last = last.local_addr().expect("its address");
        self.wait(|state| {
            let mut all = state.connections.iter();
            all.any(|connection| connection.peer == last)
                && state.connections.iter().all(Connection::is_settled)
        });
        let mut state = self.shared.state.lock().unwrap();
        let parts = state.connections.iter().filter(|part| part.is_part());
        let parts = parts.map(|part| Fragment {
            bytes: part.bytes.clone(),
            trouble: part.trouble,
            ended: part.ended,
        });
        let parts = parts.collect();
        (std::mem::take(&mut state.requests), parts)
    }

    /// Sends bytes that nobody asked for over the connection that has brought
    /// the target `/`.
    pub(super) fn blurt(&self, bytes: &[u8]) {
        let state = self.shared.state.lock().unwrap();
        let of_root = state.requests.iter().find(|request| request.is_root());
        if let Some(request) = of_root {
            let stream = &state.connections[request.connection].stream;
            (&**stream).write_all(bytes).ok();
        }
    }

    /// Waits until the connections that these requests for `/` came over have
    /// ended. Whether they have, with `/` the last that came over them.
    pub(super) fn ended_with_root(&self, requests: &[Request]) -> bool {
        let roots = || requests.iter().filter(|request| request.is_root());
        let last = roots().all(|root| {
            let behind = requests.iter().rev();
            let mut behind = behind.filter(|other| other.connection == root.connection);
            behind.next().is_some_and(Request::is_root)
        });
        last && self.wait(|state| roots().all(|root| state.connections[root.connection].ended))
    }

    /// Whether it came to that before patience ended.
    fn wait(&self, mut until: impl FnMut(&State) -> bool) -> bool {
        let state = self.shared.state.lock().unwrap();
        let not_yet = |state: &mut State| !until(state);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, not_yet);
        !waited.unwrap().1.timed_out()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        state.over = true;
        for connection in &state.connections {
            connection.stream.shutdown(Shutdown::Both).ok();
        }
        drop(state);
        // Wakes the accepting thread.
        TcpStream::connect(self.addr).ok();
    }
}

impl Request {
    pub(super) fn is_root(&self) -> bool {
        self.message.second_word() == "/"
    }
}

impl Connection {
    fn is_part(&self) -> bool {
        !self.bytes.is_empty()
    }

    fn is_settled(&self) -> bool {
        self.ended || !self.is_part() && ioctl_fionread(&*self.stream).is_ok_and(|left| left == 0)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, peer)) = listener.accept() {
        let mut state = shared.state.lock().unwrap();
        if state.over {
            return;
        }
        stream.set_nodelay(true).ok();
        let stream = Arc::new(stream);
        let index = state.connections.len();
        state.connections.push(Connection {
            peer,
            stream: Arc::clone(&stream),
            bytes: Vec::new(),
            trouble: Trouble::Incomplete,
            ended: false,
        });
        shared.changed.notify_all();
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || serve(&stream, index, &shared));
    }
}

fn serve(mut stream: &TcpStream, index: usize, shared: &Shared) {
    loop {
        // Bytes leave the kernel's buffer only under the lock: in one of the
        // two, whoever holds it finds them.
        let waiting = stream.peek(&mut [0]);
        let mut state = shared.state.lock().unwrap();
        let answers = if waiting.is_ok_and(|waiting| waiting > 0) {
            let mut chunk = vec![0; 64 * 1024];
            let read = stream.read(&mut chunk).unwrap_or_default();
            record(&mut state, index, &chunk[..read])
        } else {
            state.connections[index].ended = true;
            shared.changed.notify_all();
            return;
        };
        shared.changed.notify_all();
        drop(state);
        for answer in answers {
            // Whoever hangs up in the middle of it is seen to, above.
            answer.delivery.send(stream, &answer.bytes).ok();
            if answer.closes {
                stream.shutdown(Shutdown::Write).ok();
            }
        }
    }
}

/// Keeps what has come, and returns the answers to what is whole by now.
fn record(state: &mut MutexGuard<'_, State>, index: usize, read: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut bytes = std::mem::take(&mut state.connections[index].bytes);
    bytes.extend_from_slice(read);
    while !bytes.is_empty() {
        match Message::read(&bytes, Body::AsFramed) {
            Ok(message) => {
                bytes.drain(..message.length);
                let request = Request {
                    message,
                    connection: index,
                };
                let own = state.answer.clone().filter(|_| request.is_root());
                answers.push(own.unwrap_or_else(|| naming(&request)));
                state.requests.push(request);
            }
            Err(trouble) => {
                state.connections[index].trouble = trouble;
                if trouble != Trouble::Incomplete {
                    // Nobody should wait for an answer to that.
                    let stream = &state.connections[index].stream;
                    stream.shutdown(Shutdown::Write).ok();
                }
                break;
            }
        }
    }
    state.connections[index].bytes = bytes;
    answers
}

/// 200 and the request's target.
fn naming(request: &Request) -> Answer {
    let target = request.message.second_word();
    let bytes = format!("HTTP/1.1 200 OK\r\nx-target: {target}\r\ncontent-length: 0\r\n\r\n");
    Answer {
        bytes: bytes.into_bytes(),
        closes: false,
        delivery: Delivery::Whole,
    }
}
