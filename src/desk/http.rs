//! A small HTTP server: as many connections as there are places, each for a
//! bounded time, each request answered by one function.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    lease::Lease,
    places::{Place, Places},
    taken::Taken,
};
use crate::net;

/// How long a client may take to send a request's head, or stay silent
/// between two requests.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may last, and how long after it last had room for
/// more where it follows a stream. A client that takes its answer byte by byte
/// would otherwise keep its place for ever.
pub(crate) const CONNECTION_LIFETIME: Duration = Duration::from_mins(1);

/// How long a response that is under way may take to end after that.
const LAST_RESPONSE: Duration = Duration::from_secs(5);

/// The most that is held of what a connection sends: its longest head.
const LARGEST_HEAD: usize = 32 * 1024;

/// The connection that a request comes by.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// How long it may still last.
    pub(crate) lease: Lease,
    /// What it holds.
    pub(crate) place: Place,
}

impl Visit {
    /// One that has just come.
    pub(crate) fn new(place: Place) -> Self {
        let lease = Lease::new(CONNECTION_LIFETIME);
        Self { lease, place }
    }
}

/// Answers requests on at most `most` connections at a time until `ending`,
/// then ends the responses that are under way.
pub(crate) async fn serve<A, F, B>(
    listener: TcpListener,
    most: usize,
    ending: CancellationToken,
    answer: A,
) where
    A: Fn(Request<Incoming>, Visit) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send,
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let places = Places::new(most);
    let answer = Arc::new(answer);
    let connections = TaskTracker::new();
    let accepting = async {
        loop {
            let (stream, peer) = net::accept(&listener).await;
            let visit = Visit::new(places.admit(Some(peer.ip())).await);
            let (answer, ending) = (Arc::clone(&answer), ending.clone());
            connections.spawn(async move { attend(stream, visit, ending, &*answer).await });
        }
    };
    ending.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn attend<A, F, B>(stream: TcpStream, visit: Visit, ending: CancellationToken, answer: &A)
where
    A: Fn(Request<Incoming>, Visit) -> F,
    F: Future<Output = Response<B>>,
    B: http_body::Body<Data = Bytes, Error = Infallible> + 'static,
{
    let service = service_fn(|request| {
        visit.place.heard();
        let answered = answer(request, visit.clone());
        async { Ok::<_, Infallible>(answered.await) }
    });
    let stream = Taken::new(stream, visit.place.clone());
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let time_is_up = async {
        tokio::select! {
            () = visit.lease.expired() => {}
            () = ending.cancelled() => {}
        }
    };
    let served = async {
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = time_is_up => {
                connection.as_mut().graceful_shutdown();
                timeout(LAST_RESPONSE, connection).await.unwrap_or(Ok(()))
            }
        }
    };
    let outcome = tokio::select! {
        biased;
        () = visit.place.told_to_go() => return,
        outcome = served => outcome,
    };
    if let Err(err) = outcome {
        debug!("Statistics: {err}");
    }
}
