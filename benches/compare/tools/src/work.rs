//! What a user does: one kind of request, over and over, and what counts as
//! its answer.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::{args, message::Message};

/// Bytes to and fro for each "request" of a WebSocket. No proxy here looks
/// into frames, so they are not ones.
pub const ECHO: usize = 64;

/// One kind of work.
#[derive(Debug)]
pub struct Work {
    to: SocketAddr,
    /// What is sent; the n-th connection sends the n-th, again from the first.
    requests: Vec<&'static [u8]>,
    /// It is the n-th request that sends the n-th.
    in_turn: bool,
    /// Each request on a connection of its own.
    pub reconnect: bool,
    websocket: bool,
}

/// What an answer has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Unfinished,
    Good,
    /// An answer, but not a 200.
    Bad,
}

impl Work {
    /// By the flags: `--to`, `--path`, `--post BYTES`, `--cookies SERVERS` (a
    /// connection keeps its cookie, unless `--in-turn yes`), `--reconnect yes`,
    /// `--websocket yes`.
    pub fn from_args() -> Self {
        let path: String = args::optional("--path").unwrap_or_else(|| "/small".to_owned());
        let post: Option<usize> = args::optional("--post");
        let servers: Option<usize> = args::optional("--cookies");
        let in_turn = args::optional::<String>("--in-turn").is_some();
        let reconnect = args::optional::<String>("--reconnect").is_some();
        let websocket = args::optional::<String>("--websocket").is_some();
        let requests = match (websocket, servers) {
            (true, _) => vec![&*Vec::leak(vec![b'w'; ECHO])],
            (false, None) => vec![request(&path, post, None, reconnect)],
            (false, Some(servers)) => (1..=servers)
                .map(|server| request(&path, post, Some(server), reconnect))
                .collect(),
        };
        Self {
            to: args::required("--to"),
            requests,
            in_turn,
            reconnect,
            websocket,
        }
    }

    /// The `count`-th request of all, on that connection.
    pub fn request(&self, connection: usize, count: u64) -> &'static [u8] {
        let which = if self.in_turn {
            count as usize
        } else {
            connection
        };
        self.requests[which % self.requests.len()]
    }

    /// Connects, down to the upgrade if there is one. Blocks; on loopback
    /// that takes no longer than the system call.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.to)?;
        if self.websocket {
            upgrade(&mut stream)?;
        }
        Ok(stream)
    }

    pub fn answer(&self) -> Answer {
        if self.websocket {
            Answer::Echo(0)
        } else {
            Answer::Http(Message::default())
        }
    }
}

/// An answer that comes in.
#[derive(Debug)]
pub enum Answer {
    Http(Message),
    Echo(usize),
}

impl Answer {
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<Outcome> {
        match self {
            Self::Http(message) => {
                if !message.take(bytes)? {
                    return Ok(Outcome::Unfinished);
                }
                let good = message.second_word() == b"200";
                message.clear();
                Ok(if good { Outcome::Good } else { Outcome::Bad })
            }
            Self::Echo(seen) => {
                *seen += bytes.len();
                if *seen < ECHO {
                    return Ok(Outcome::Unfinished);
                }
                *seen -= ECHO;
                Ok(Outcome::Good)
            }
        }
    }
}

fn request(path: &str, post: Option<usize>, server: Option<usize>, close: bool) -> &'static [u8] {
    let method = if post.is_some() { "POST" } else { "GET" };
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: compare.test\r\nUser-Agent: load\r\nAccept: */*\r\n"
    );
    if let Some(server) = server {
        head += &format!("Cookie: theme=dark; SERVERID=s{server}; lang=en\r\n");
    }
    if close {
        head += "Connection: close\r\n";
    }
    if let Some(bytes) = post {
        head += &format!("Content-Type: application/octet-stream\r\nContent-Length: {bytes}\r\n");
    }
    head += "\r\n";
    let mut request = head.into_bytes();
    request.resize(request.len() + post.unwrap_or_default(), b'b');
    Vec::leak(request)
}

fn upgrade(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(
        b"GET /echo HTTP/1.1\r\nHost: compare.test\r\nConnection: Upgrade\r\n\
          Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut answer = Message::default();
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("closed instead of an upgrade"));
        }
        if answer.take(&buffer[..count])? {
            break;
        }
    }
    if answer.second_word() != b"101" {
        let status = String::from_utf8_lossy(answer.second_word()).into_owned();
        return Err(io::Error::other(format!("{status} instead of an upgrade")));
    }
    Ok(())
}
