//! A connection from accept to its first request: who is there, and what is
//! spoken.

use std::rc::Rc;

use tokio::{net::TcpStream, time::timeout};

use super::{
    Worker,
    accept_proxy::{self, Ends},
    connection::{self, Guest},
    control::Talk,
    forwarded::Origin,
    http2,
    stream::Stream,
};
use crate::cidr::any_contains;

/// What is spoken on a listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP on the bare connection.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Serves a connection until its end.
pub(super) async fn admit(
    worker: Rc<Worker>,
    mut socket: TcpStream,
    scheme: Scheme,
    talk: Rc<Talk>,
) {
    let _known = Known(&worker, &talk);
    let Ok(local) = socket.local_addr() else {
        return;
    };
    let _open = Open::count(&worker);
    let mut ends = Ends {
        peer: talk.peer(),
        local,
    };
    if any_contains(&worker.settings.accept_proxy, ends.peer.ip()) {
        // Behind a pointer: it is over before the first request.
        let introduced = Box::pin(accept_proxy::introduce(&worker, &mut socket, ends)).await;
        let Some(told) = introduced else {
            return;
        };
        talk.introduce(told.peer);
        ends = told;
    }
    let stream = match scheme {
        Scheme::Http => socket.into(),
        Scheme::Https => {
            // Behind a pointer: a connection is idle for longer.
            let Some(stream) = Box::pin(shake_hands(&worker, socket)).await else {
                return;
            };
            stream
        }
    };
    let _secure = (scheme == Scheme::Https).then(|| Secure::count(&worker));
    let Ends { peer, local } = ends;
    let origin = Origin::new(&worker.settings.forwarded, scheme.as_str(), peer, local);
    let guest = Guest {
        peer,
        http2: false,
        origin: Rc::new(origin),
    };
    let served = connection::serve(&worker, stream, guest.clone(), &talk);
    if let Some((stream, input)) = served.await {
        // Behind a pointer: most connections speak HTTP/1.1.
        Box::pin(http2::serve(&worker, stream, input, guest)).await;
    }
}

impl Scheme {
    /// As servers are told.
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Takes the client's TLS handshake, for which it has as long as for a
/// request's head. One that fails has been counted, and told why by an alert.
async fn shake_hands(worker: &Worker, socket: TcpStream) -> Option<Stream> {
    let handshake = worker.tls.as_ref()?.accept(socket);
    let handshake = timeout(worker.timeouts.http_request, handshake);
    tokio::select! {
        biased;
        shaken = handshake => Some(Stream::layered(shaken.ok()?.ok()?)),
        () = worker.last_orders.too_late() => None,
    }
}

/// Has the worker know a connection for as long as it is open.
pub(super) struct Known<'a>(pub(super) &'a Worker, pub(super) &'a Talk);

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.0.known.forget(self.1);
    }
}

/// Counts a connection for as long as it is open.
struct Open<'a>(&'a Worker);

impl<'a> Open<'a> {
    fn count(worker: &'a Worker) -> Self {
        let frontend = &worker.ledger.shared().frontend;
        frontend.connections_total.inc();
        frontend.connections.inc();
        Self(worker)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.ledger.shared().frontend.connections.dec();
    }
}

/// Counts a connection over TLS for as long as it is open.
struct Secure<'a>(&'a Worker);

impl<'a> Secure<'a> {
    fn count(worker: &'a Worker) -> Self {
        worker.ledger.all().tls_connections.inc();
        worker.ledger.shared().frontend.tls.inc();
        Self(worker)
    }
}

impl Drop for Secure<'_> {
    fn drop(&mut self) {
        self.0.ledger.shared().frontend.tls.dec();
    }
}
