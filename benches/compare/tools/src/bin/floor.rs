//! The floor: what it costs to carry requests at all. `--listen` an address,
//! then the servers as plain arguments after `--`.
//!
//! It makes the system calls that a proxy cannot do without: it waits, reads
//! from the client, writes to the server, waits, reads from the server, writes
//! to the client. It keeps connections to servers and gives each request to
//! the next one in turn. Of the messages it looks at nothing but where an
//! answer ends: no header is added or removed, nothing is counted, logged,
//! checked, timed or retried.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
};

use tidings_compare_tools::{
    args,
    connection::{BUFFER, Connection, Received},
    message::Message,
    poll::{Poll, Ready},
    slots::Slots,
};

const LISTENER: u64 = u64::MAX;

/// A client, and the server that has its request.
struct Client {
    connection: Connection,
    server: Option<usize>,
}

/// A connection to a server, and the client whose request it has.
struct Server {
    connection: Connection,
    client: Option<usize>,
    answer: Message,
    which: usize,
    upgraded: bool,
}

struct Relay {
    poll: Poll,
    addresses: Vec<SocketAddr>,
    turn: usize,
    clients: Slots<Client>,
    servers: Slots<Server>,
    idle: Vec<Vec<usize>>,
    buffer: Vec<u8>,
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(args::required::<SocketAddr>("--listen"))?;
    listener.set_nonblocking(true)?;
    let addresses: Vec<SocketAddr> = std::env::args()
        .skip_while(|arg| arg != "--")
        .skip(1)
        .map(|address| address.parse().expect("the address of a server"))
        .collect();
    let mut relay = Relay {
        poll: Poll::new()?,
        turn: 0,
        clients: Slots::default(),
        servers: Slots::default(),
        idle: vec![Vec::new(); addresses.len()],
        addresses,
        buffer: vec![0; BUFFER],
    };
    relay.poll.add(&listener, LISTENER)?;
    let mut ready = Ready::default();
    loop {
        relay.poll.wait(&mut ready, None)?;
        for token in ready.tokens() {
            let slot = (token / 2) as usize;
            match token {
                LISTENER => relay.accept(&listener)?,
                token if token % 2 == 0 => relay.client_ready(slot),
                _ => relay.server_ready(slot),
            }
        }
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let connection = Connection::new(stream)?;
            let server = None;
            let slot = self.clients.insert(Client { connection, server });
            if let Some(client) = self.clients.get_mut(slot) {
                self.poll.add(&client.connection.stream, 2 * slot as u64)?;
            }
        }
    }

    /// A client can be read from or written to.
    fn client_ready(&mut self, slot: usize) {
        match self.carry_request(slot) {
            Ok(Some(server)) => self.server_ready(server),
            Ok(None) => {}
            Err(_) => self.hang_up(slot),
        }
    }

    /// Returns the server to go on with, if it waited for this client to take
    /// what it was sent.
    fn carry_request(&mut self, slot: usize) -> io::Result<Option<usize>> {
        loop {
            let Some(client) = self.clients.get_mut(slot) else {
                return Ok(None);
            };
            if !client.connection.flush()? {
                return Ok(None);
            }
            if let Some(server) = client.server
                && let Some(server) = self.servers.get_mut(server)
                && !server.connection.flush()?
            {
                return Ok(None);
            }
            let (count, last) = match client.connection.receive(&mut self.buffer)? {
                Received::More(count) => (count, false),
                Received::Last(count) => (count, true),
                Received::Nothing => return Ok(client.server),
                Received::Closed => return Err(ErrorKind::ConnectionReset.into()),
            };
            let server = match client.server {
                Some(server) => server,
                None => self.choose(slot)?,
            };
            if let Some(server) = self.servers.get_mut(server) {
                server.connection.relay(&self.buffer[..count])?;
            }
            if last {
                return Ok(None);
            }
        }
    }

    fn choose(&mut self, client: usize) -> io::Result<usize> {
        let which = self.turn;
        self.turn = (self.turn + 1) % self.addresses.len();
        let server = match self.idle[which].pop() {
            Some(server) => server,
            None => {
                let connection = Connection::new(TcpStream::connect(self.addresses[which])?)?;
                let slot = self.servers.insert(Server {
                    connection,
                    client: None,
                    answer: Message::default(),
                    which,
                    upgraded: false,
                });
                if let Some(server) = self.servers.get_mut(slot) {
                    self.poll
                        .add(&server.connection.stream, 2 * slot as u64 + 1)?;
                }
                slot
            }
        };
        if let Some(server) = self.servers.get_mut(server) {
            server.client = Some(client);
        }
        if let Some(client) = self.clients.get_mut(client) {
            client.server = Some(server);
        }
        Ok(server)
    }

    /// A server can be read from or written to.
    fn server_ready(&mut self, slot: usize) {
        let client = self.servers.get_mut(slot).and_then(|server| server.client);
        match self.carry_answer(slot) {
            // It took the rest of a large request: there may be more of it.
            Ok(true) => {
                if let Some(client) = client
                    && self.carry_request(client).is_err()
                {
                    self.hang_up(client);
                }
            }
            Ok(false) => {}
            Err(_) => match client {
                Some(client) => self.hang_up(client),
                None => self.forget(slot),
            },
        }
    }

    /// True when a request that waited for this server can go on.
    fn carry_answer(&mut self, slot: usize) -> io::Result<bool> {
        loop {
            let Some(server) = self.servers.get_mut(slot) else {
                return Ok(false);
            };
            let waited = server.connection.is_waiting();
            if !server.connection.flush()? {
                return Ok(false);
            }
            if waited {
                return Ok(true);
            }
            if let Some(client) = server.client
                && let Some(client) = self.clients.get_mut(client)
                && !client.connection.flush()?
            {
                return Ok(false);
            }
            let (count, last) = match server.connection.receive(&mut self.buffer)? {
                Received::More(count) => (count, false),
                Received::Last(count) => (count, true),
                Received::Nothing => return Ok(false),
                Received::Closed => return Err(ErrorKind::ConnectionReset.into()),
            };
            let bytes = &self.buffer[..count];
            let ended = !server.upgraded && server.answer.take(bytes)?;
            let Some(slot_of_client) = server.client else {
                return Err(ErrorKind::InvalidData.into());
            };
            if ended && server.answer.second_word() == b"101" {
                server.upgraded = true;
            } else if ended {
                server.answer.clear();
                server.client = None;
                self.idle[server.which].push(slot);
            }
            let done = ended && !server.upgraded;
            if let Some(client) = self.clients.get_mut(slot_of_client) {
                client.connection.relay(bytes)?;
                if done {
                    client.server = None;
                }
            }
            if last {
                return Ok(false);
            }
        }
    }

    /// A client is gone, and its request with it.
    fn hang_up(&mut self, client: usize) {
        let client = self.clients.remove(client);
        if let Some(server) = client.and_then(|client| client.server) {
            self.forget(server);
        }
    }

    fn forget(&mut self, server: usize) {
        if let Some(gone) = self.servers.remove(server) {
            self.idle[gone.which].retain(|idle| *idle != server);
        }
    }
}
