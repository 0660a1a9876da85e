//! The servers behind the proxies: fixed bodies from memory, on as many ports
//! as are asked for (`--servers N`). Prints the addresses, one a line.
//!
//! | target | answer |
//! |---|---|
//! | `/small`, `/64k`, `/1m` | a body of that size, 100 bytes for the small one |
//! | `/head` | who answers, and the head that came: what the proxy made of it |
//! | `/echo` | an upgrade, then every byte comes back |
//!
//! It keeps every connection, even where `Connection: close` asks otherwise:
//! the floor passes that on, and a proxy does not.

use std::{
    io::{self, ErrorKind, Write},
    net::{Ipv4Addr, TcpListener},
};

use tidings_compare_tools::{
    args,
    connection::{BUFFER, Connection, Received},
    message::Message,
    poll::{Poll, Ready},
    slots::Slots,
};

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

struct Peer {
    connection: Connection,
    message: Message,
    /// Which of the servers it talks to.
    server: usize,
    upgraded: bool,
}

struct Answers {
    small: &'static [u8],
    medium: &'static [u8],
    large: &'static [u8],
}

fn main() -> io::Result<()> {
    let servers: usize = args::required("--servers");
    let poll = Poll::new()?;
    let mut listeners = Vec::new();
    for server in 0..servers {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        poll.add(&listener, server as u64)?;
        println!("{}", listener.local_addr()?);
        listeners.push(listener);
    }
    println!();
    io::stdout().flush()?;

    let answers = Answers {
        small: answer(100),
        medium: answer(64 << 10),
        large: answer(1 << 20),
    };
    let mut peers = Slots::default();
    let mut buffer = vec![0; BUFFER];
    let mut ready = Ready::default();
    loop {
        poll.wait(&mut ready, None)?;
        for token in ready.tokens() {
            let token = token as usize;
            match token.checked_sub(servers) {
                None => accept(&poll, &listeners[token], token, servers, &mut peers)?,
                Some(slot) => {
                    let Some(peer) = peers.get_mut(slot) else {
                        continue;
                    };
                    if !matches!(drive(peer, &answers, &mut buffer), Ok(true)) {
                        peers.remove(slot);
                    }
                }
            }
        }
    }
}

fn answer(size: usize) -> &'static [u8] {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + size, b'x');
    Vec::leak(bytes)
}

fn accept(
    poll: &Poll,
    listener: &TcpListener,
    server: usize,
    servers: usize,
    peers: &mut Slots<Peer>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The other end is gone already.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        // A check that has closed again fails here, and is nobody.
        let Ok(connection) = Connection::new(stream) else {
            continue;
        };
        let slot = peers.insert(Peer {
            connection,
            message: Message::default(),
            server,
            upgraded: false,
        });
        if let Some(peer) = peers.get_mut(slot) {
            poll.add(&peer.connection.stream, (servers + slot) as u64)?;
        }
    }
}

/// Does what can be done; false when the connection is over.
fn drive(peer: &mut Peer, answers: &Answers, buffer: &mut [u8]) -> io::Result<bool> {
    loop {
        if !peer.connection.flush()? {
            return Ok(true);
        }
        let (count, last) = match peer.connection.receive(buffer)? {
            Received::More(count) => (count, false),
            Received::Last(count) => (count, true),
            Received::Nothing => return Ok(true),
            Received::Closed => return Ok(false),
        };
        let bytes = &buffer[..count];
        if peer.upgraded {
            peer.connection.relay(bytes)?;
        } else if peer.message.take(bytes)? {
            respond(peer, answers)?;
        }
        if last {
            return Ok(true);
        }
    }
}

fn respond(peer: &mut Peer, answers: &Answers) -> io::Result<()> {
    match peer.message.second_word() {
        b"/64k" => peer.connection.send(answers.medium)?,
        b"/1m" => peer.connection.send(answers.large)?,
        b"/head" => {
            let head = peer.message.head();
            let who = format!("s{}\r\n", peer.server + 1);
            let length = who.len() + head.len();
            let status = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{who}");
            peer.connection.relay(&[status.as_bytes(), head].concat())?;
        }
        b"/echo" => {
            peer.upgraded = true;
            peer.connection.send(SWITCH)?;
        }
        _ => peer.connection.send(answers.small)?,
    }
    peer.message.clear();
    Ok(())
}
