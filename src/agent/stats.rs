//! The agent's HTTP server: what orchestrators and Prometheus ask.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tracing::debug;

use super::status::Status;
use crate::{
    net,
    stats::{Figure, prometheus},
};

/// Connections at a time: a few scrapers and probes.
const MOST_CONNECTIONS: usize = 32;

/// How long a connection may last; a client that does not read would keep its
/// place for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_mins(1);

/// Answers for ever.
pub(super) async fn run(listener: TcpListener, status: Arc<Status>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let figures: Arc<[Figure]> = status.figures().into();
    loop {
        let (stream, _) = net::accept(&listener).await;
        // One too many is closed at once: it is better told than kept waiting.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let connection = serve(stream, Arc::clone(&status), Arc::clone(&figures));
        tokio::spawn(async move {
            // What took too long is closed; nobody is left to tell.
            timeout(CONNECTION_LIFETIME, connection).await.ok();
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, status: Arc<Status>, figures: Arc<[Figure]>) {
    let service = service_fn(move |request| {
        let response = respond(&status, &figures, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    if let Err(err) = connection.await {
        debug!("Statistics: {err}");
    }
}

fn respond<B>(status: &Status, figures: &[Figure], request: &Request<B>) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refusal = "GET and HEAD only\n";
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, refusal);
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allowed);
        return response;
    }
    match request.uri().path() {
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match status.ready() {
            Ok(()) => response(StatusCode::OK, TEXT, "ready\n"),
            Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        "/metrics" => {
            let metrics = prometheus::render_figures(figures);
            response(StatusCode::OK, prometheus::CONTENT_TYPE, metrics)
        }
        _ => {
            let there = "there are /metrics, /healthz and /readyz\n";
            response(StatusCode::NOT_FOUND, TEXT, there)
        }
    }
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::membership::Phase;

    async fn ask(status: &Arc<Status>, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(()).unwrap();
        let response = respond(status, &status.figures(), &request);
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.into()).unwrap())
    }

    fn status() -> Arc<Status> {
        Status::new("s1".parse().unwrap(), "nodes".parse().unwrap())
    }

    #[tokio::test]
    async fn it_is_alive_before_it_is_ready() {
        let status = status();
        status.says(Phase::Ready);
        assert_eq!(ask(&status, "/healthz").await.0, StatusCode::OK);
        let (code, why) = ask(&status, "/readyz").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(why, "gossip has not begun\n");
        assert_eq!(ask(&status, "/").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn what_it_counts_is_there_from_the_start() {
        let status = status();
        let (_, metrics) = ask(&status, "/metrics").await;
        for line in [
            "tidings_agent_info{version=",
            "tidings_agent_app_up 0",
            "tidings_agent_app_starts_total 0",
            "tidings_agent_app_failures_total 0",
            "tidings_members{state=\"alive\"} 0",
            "tidings_gossip_packets_sent_total 0",
        ] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
    }

    #[test]
    fn nothing_can_be_changed() {
        let status = status();
        let request = Request::post("/readyz").body(()).unwrap();
        let response = respond(&status, &status.figures(), &request);
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
