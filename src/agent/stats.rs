//! The agent's HTTP server: what orchestrators and Prometheus ask.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::status::Status;
use crate::{
    desk::http as server,
    stats::{Figure, prometheus},
};

/// Connections at a time: a few scrapers and probes.
const MOST_CONNECTIONS: usize = 32;

/// Answers for ever.
pub(super) async fn run(listener: TcpListener, status: Arc<Status>) {
    let figures: Arc<[Figure]> = status.figures().into();
    let answer = move |request: Request<Incoming>, _| {
        let response = respond(&status, &figures, &request);
        async { response }
    };
    server::serve(listener, MOST_CONNECTIONS, CancellationToken::new(), answer).await;
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
