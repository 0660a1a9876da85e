//! Answers a request: by a server's response, or by one of our own.

use std::rc::Rc;

use http::Method;
use tower::retry::budget::Budget;

use super::{
    Worker,
    attempts::{Forwarded, forward},
    body::Body,
    connection::{Asked, Client, Wire},
    conversation::{Conversation, Stop},
    error::{Asker, Error},
    exchange::Exchange,
    pieces::{self, Taker},
    upgrade::Tunnel,
};

/// What becomes of the connection behind a request.
#[derive(Debug)]
pub(super) enum After {
    /// The next request may come.
    Next,
    /// It is closed, and the client may still be sending.
    Close,
    /// It is closed: the client is gone, or knows that nothing more comes.
    Gone,
    /// It carries another protocol.
    Tunnel(Box<Tunnel>),
    /// Its client speaks HTTP/2.
    Http2,
}

/// Answers one request.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    wire: &mut Wire,
    mut asked: Asked,
) -> After {
    let mut exchange = Exchange::begin(worker, client, &mut asked);
    let mut body = Body::new(asked.length);
    let mut conversation = Conversation {
        worker,
        client,
        asked: &asked,
        wire,
        body: &mut body,
        exchange: &mut exchange,
        again: Vec::new(),
    };
    worker.budget.deposit();
    let forwarded = match conversation.objection() {
        None => forward(&mut conversation).await,
        Some(error) => Err(Stop::Error(error)),
    };
    match forwarded {
        Ok(Forwarded::Whole(after)) => after,
        Ok(Forwarded::Switched(lease)) => {
            let closing = worker.upstreams.open_tunnel(lease.server().life);
            let (server, counted) = lease.give_away();
            let tunnel = Tunnel::new(server, counted, closing, exchange);
            After::Tunnel(Box::new(tunnel))
        }
        Err(Stop::ClientGone) => After::Gone,
        Err(Stop::BrokenOff(how)) => {
            exchange.finish(how);
            After::Close
        }
        Err(Stop::Error(error)) => conversation.answer_with(error).await,
    }
}

impl Conversation<'_> {
    /// What speaks against asking a server.
    fn objection(&self) -> Option<Error> {
        let redirected = self.asked.redirect.is_some();
        let too_many = self.worker.exceeds_rate(self.asked, self.client);
        too_many.or(redirected.then_some(Error::NotSecure))
    }

    /// Gives an answer of our own.
    async fn answer_with(&mut self, error: Error) -> After {
        self.exchange.fail(error);
        // A body that is there already need not end the connection.
        let keep_alive = !error.ends_connection()
            && self.body.skip(&mut self.wire.input)
            && self.client.may_ask_again(self.worker, self.asked);
        let mut answer = Vec::new();
        let head = self.write(error, keep_alive, &mut answer);
        self.exchange.begin_own_response(head as u64);
        self.exchange.add_bytes_out((answer.len() - head) as u64);
        let (_, mut to) = self.wire.stream.split();
        let taker = Taker::Client(&self.client.watch);
        match pieces::write(&mut to, &mut answer, b"", b"", taker).await {
            Ok(()) if keep_alive => After::Next,
            Ok(()) => After::Close,
            Err(_) => After::Gone,
        }
    }

    /// Appends the answer, and says how long its head is.
    fn write(&self, error: Error, keep_alive: bool, to: &mut Vec<u8>) -> usize {
        let why = self.worker.why(self.exchange);
        let redirect = self.asked.redirect.as_deref();
        let asker = Asker {
            version: self.asked.version,
            head_only: self.asked.method == Method::HEAD,
            keep_alive,
            why: why.as_deref(),
            location: redirect.filter(|_| error == Error::NotSecure),
            hsts: self.client.hsts(self.worker),
        };
        error.write(to, &asker)
    }
}

impl Worker {
    /// Whether the client's source asks more than it may.
    fn exceeds_rate(&self, asked: &Asked, client: &Client) -> Option<Error> {
        let limit = self.rate_limit.as_ref()?;
        let wait = limit.take(asked.source, client.watch.now()).err()?;
        self.ledger.all().denied.inc();
        Some(Error::TooManyRequests(wait))
    }

    /// Why the request went where it went, where the response is to say so
    /// (`--explain`).
    pub(super) fn why(&self, exchange: &Exchange) -> Option<String> {
        let why = exchange
            .why()
            .filter(|_| self.settings.explain)?
            .to_string();
        let is_text = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        // It quotes the client.
        why.bytes().all(is_text).then_some(why)
    }
}
