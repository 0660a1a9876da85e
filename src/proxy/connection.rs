//! One client connection from accept to close.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, Connection},
    service::service_fn,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Worker,
    access_log::BadRequest,
    body::ResponseBody,
    client_io::ClientIo,
    control::Talk,
    error::Error,
    headers::Origin,
    service::{Client, handle},
    upgrade::Limits,
    watch::{Expired, Watch},
};

/// The largest request head, `HAProxy`'s buffer. A larger one gets 431.
const MAX_HEAD: usize = 16 * 1024;

/// How long a closed connection is read on, so that a client that is still
/// sending sees our answer and not a reset (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection that has asked nothing yet may still begin to, once
/// the word to drain is given: its client has just connected, or never asks.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How a connection came to its end.
enum End {
    /// hyper is done with it.
    Done(hyper::Result<()>),
    /// It waited too long.
    Expired(Expired),
}

/// Serves requests on a connection until its end.
pub(super) async fn serve(worker: Rc<Worker>, socket: TcpStream, talk: Rc<Talk>) {
    let _known = Known(&worker, &talk);
    let peer = talk.peer();
    let Ok(local) = socket.local_addr() else {
        return;
    };
    let _open = Open::count(&worker);
    let timeouts = worker.settings.timeouts;
    let watch = Rc::new(Watch::new(timeouts, Instant::now()));
    let client = Rc::new(Client {
        peer,
        origin: Origin::new(peer, local),
        watch: Rc::clone(&watch),
        talk: Rc::clone(&talk),
        tunnel: RefCell::new(None),
    });
    let io = ClientIo::new(socket, Rc::clone(&watch));
    let service = service_fn(|request: Request<Incoming>| {
        let answer = handle(Rc::clone(&worker), Rc::clone(&client), request);
        async { Ok::<Response<ResponseBody>, Infallible>(answer.await) }
    });
    let mut connection = Builder::new()
        .max_header_size(MAX_HEAD)
        .serve_connection(io, service);
    let end = drive(&mut connection, &watch, &worker.draining).await;
    let parts = connection.into_parts();
    let socket = parts.io.into_inner();
    let tunnel = client.tunnel.take();
    match (tunnel, end) {
        (Some(tunnel), End::Done(Ok(()))) => {
            let limits = Limits {
                idle: timeouts.tunnel,
                half_closed: timeouts.client,
            };
            tunnel.run(socket, parts.read_buf, limits).await;
        }
        (_, end) => close(&worker, peer, socket, &end, &watch).await,
    }
}

/// Polls the connection and its one timer.
///
/// The timer is only moved when a wait ends before it, or when it fires: most
/// requests come and go without touching it.
async fn drive<S>(
    connection: &mut Connection<ClientIo, S>,
    watch: &Watch,
    draining: &CancellationToken,
) -> End
where
    S: hyper::service::HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut timer = pin!(sleep_until(watch.deadline().unwrap_or_else(Instant::now)));
    let mut drain = pin!(draining.cancelled());
    let mut told_to_drain = false;
    let mut last_exchange = false;
    poll_fn(|cx| {
        if !told_to_drain && drain.as_mut().poll(cx).is_ready() {
            told_to_drain = true;
            watch.hurry(LAST_CHANCE, Instant::now());
        }
        loop {
            if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
                return Poll::Ready(End::Done(result));
            }
            // Only now has it read what waited in the socket. Told earlier,
            // hyper would close a connection whose request is there.
            if told_to_drain && !last_exchange && !watch.expects_first_request() {
                last_exchange = true;
                Pin::new(&mut *connection).graceful_shutdown();
                continue;
            }
            let Some(deadline) = watch.deadline() else {
                return Poll::Pending;
            };
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match watch.expire(Instant::now()) {
                // The exchange sees it when it is polled, and answers.
                Some(Expired::Server) => {}
                Some(expired) => return Poll::Ready(End::Expired(expired)),
                None => timer.as_mut().reset(deadline),
            }
        }
    })
    .await
}

async fn close(worker: &Worker, peer: SocketAddr, mut socket: TcpStream, end: &End, watch: &Watch) {
    let bad_request = match end {
        End::Expired(Expired::Head) => Some(BadRequest::too_slow()),
        End::Done(Err(err)) if err.is_parse() && !err.is_incomplete_message() => {
            Some(BadRequest::unreadable(err))
        }
        End::Done(Err(_)) if watch.head_arrives_since().is_some() => Some(BadRequest::broken_off()),
        End::Expired(_) | End::Done(_) => None,
    };
    if let Some(what) = bad_request {
        // What was sent ahead of its turn has taken no time.
        let took = watch.head_arrives_since().map(|since| since.elapsed());
        worker.log_bad_request(peer, took.unwrap_or_default(), what);
    }
    match end {
        End::Expired(Expired::Head | Expired::Body) => {
            let answer = Error::RequestTimeout.raw_response();
            // The client may be gone; there is nobody else to tell.
            timeout(LINGER, socket.write_all(&answer)).await.ok();
        }
        End::Expired(Expired::Client) => return,
        End::Expired(_) | End::Done(_) => {}
    }
    timeout(LINGER, linger(socket)).await.ok();
}

/// Says goodbye, then reads what the client still sends.
async fn linger(mut socket: TcpStream) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 4096];
    while matches!(socket.read(&mut rest).await, Ok(read) if read > 0) {}
}

/// Has the worker know a connection for as long as it is open.
struct Known<'a>(&'a Worker, &'a Talk);

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
