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
    let refused = worker.exceeds_rate(&asked, client);
    let mut body = Body::new(asked.length);
    worker.budget.deposit();
    let mut conversation = Conversation {
        worker,
        client,
        asked: &asked,
        wire,
        body: &mut body,
        exchange: &mut exchange,
    };
    let forwarded = match refused {
        None => forward(&mut conversation).await,
        Some(error) => Err(Stop::Error(error)),
    };
    let error = match forwarded {
        Ok(Forwarded::Whole(after)) => return after,
        Ok(Forwarded::Switched(lease)) => {
            let closing = worker.upstreams.open_tunnel(lease.server().life);
            let (server, counted) = lease.give_away();
            let tunnel = Tunnel::new(server, counted, closing, exchange);
            return After::Tunnel(Box::new(tunnel));
        }
        Err(Stop::ClientGone) => return After::Gone,
        Err(Stop::BrokenOff(how)) => {
            exchange.finish(how);
            return After::Close;
        }
        Err(Stop::Error(error)) => error,
    };
    exchange.fail(error);
    // A body that is there already need not end the connection.
    let keep_alive = !error.ends_connection()
        && body.skip(&mut wire.input)
        && client.may_ask_again(worker, &asked);
    let why = worker.why(&exchange);
    let asker = Asker {
        version: asked.version,
        head_only: asked.method == Method::HEAD,
        keep_alive,
        why: why.as_deref(),
        location: asked
            .redirect
            .as_deref()
            .filter(|_| error == Error::NotSecure),
        hsts: client.hsts(worker),
    };
    let mut answer = Vec::new();
    let head = error.write(&mut answer, &asker);
    exchange.begin_own_response(head as u64);
    exchange.add_bytes_out((answer.len() - head) as u64);
    let (_, mut to) = wire.stream.split();
    let written = pieces::write(&mut to, &mut answer, b"", b"", Taker::Client(&client.watch)).await;
    match written {
        Ok(()) if keep_alive => After::Next,
        Ok(()) => After::Close,
        Err(_) => After::Gone,
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
