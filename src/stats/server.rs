//! The HTTP server of the statistics: a few routes, read only.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    balancer, csv,
    events::{self, Query},
    follow::{self, Followers, MOST_FOLLOWERS},
    json,
    lease::Lease,
    page::{self, Options},
    prometheus,
    source::Source,
    view::{Rows, rows},
};
use crate::net;

/// Connections at a time: many browsers and scrapers, and a bound on what a
/// flood of them may hold.
const MOST_CONNECTIONS: usize = 256;

/// How long a client may take to send a request's head, or stay silent
/// between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may last, and how long after it last had room for
/// more where it follows events. A client that does not read its response
/// would otherwise keep its place for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_mins(1);

/// How long a response that is under way may take to end after that.
const LAST_RESPONSE: Duration = Duration::from_secs(5);

/// A response's body: all there is to say, or events as they happen.
type Body = Either<Full<Bytes>, follow::Stream>;

/// Serves the statistics until `shutdown`, then ends the responses that are
/// under way.
pub async fn run(listener: TcpListener, source: Arc<Source>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let ending = CancellationToken::new();
    let followers = Followers::new(ending.clone());
    let connections = TaskTracker::new();
    loop {
        let (stream, _) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = net::accept(&listener) => accepted,
        };
        // One too many is closed at once: it is better told than kept waiting.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (source, ending) = (Arc::clone(&source), ending.clone());
        let followers = followers.clone();
        connections.spawn(async move {
            serve(stream, source, followers, ending).await;
            drop(place);
        });
    }
    ending.cancel();
    connections.close();
    connections.wait().await;
}

async fn serve(
    stream: TcpStream,
    source: Arc<Source>,
    followers: Followers,
    ending: CancellationToken,
) {
    let lease = Lease::new(CONNECTION_LIFETIME);
    let renewable = lease.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&source, &followers, &renewable, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let time_is_up = async {
        tokio::select! {
            () = lease.expired() => {}
            () = ending.cancelled() => {}
        }
    };
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = time_is_up => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_RESPONSE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(err) = outcome {
        debug!("Statistics: {err}");
    }
}

/// Answers a request.
fn respond<B>(
    source: &Source,
    followers: &Followers,
    lease: &Lease,
    request: &Request<B>,
) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        return with(response, header::ALLOW, "GET, HEAD");
    }
    let now = Instant::now();
    let path = request.uri().path();
    match path {
        // Orchestrators ask these and have no password.
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(source, &rows(source, now)),
        _ if !is_allowed(source, request) => {
            let response = text(StatusCode::UNAUTHORIZED, "user and password, please\n");
            let challenge = "Basic realm=\"HAProxy Statistics\"";
            with(response, header::WWW_AUTHENTICATE, challenge)
        }
        "/metrics" => {
            let body = prometheus::render(source, &rows(source, now), now);
            response(StatusCode::OK, prometheus::CONTENT_TYPE, whole(body))
        }
        "/v1/balancer" => as_json(balancer::render(source, &rows(source, now), now)),
        "/v1/servers" => as_json(json::servers(source, &rows(source, now))),
        "/v1/members" => as_json(json::members(&(source.members)(), now)),
        "/v1/events" => events(source, followers, lease, request)
            .unwrap_or_else(|wrong| text(StatusCode::BAD_REQUEST, wrong)),
        _ if path.starts_with("/v1/") => text(StatusCode::NOT_FOUND, "no such resource\n"),
        _ => statistics(source, &request.uri().to_string(), now),
    }
}

/// What happened, or what happens from now on; an error is what is wrong with
/// the request.
fn events<B>(
    source: &Source,
    followers: &Followers,
    lease: &Lease,
    request: &Request<B>,
) -> Result<Response<Body>, &'static str> {
    let timeline = source.pool.timeline();
    let query = Query::of(request.uri().query().unwrap_or_default())?;
    if !follow::is_asked_for(query, request.headers()) {
        let after = query.after.unwrap_or_default();
        return Ok(as_json(events::render(timeline, after)));
    }
    let last_seen = follow::last_seen(query, request.headers())?;
    let stream = followers.begin(timeline, last_seen, lease);
    Ok(stream.map_or_else(too_many_followers, |stream| {
        let body = Either::Right(stream);
        response(StatusCode::OK, follow::CONTENT_TYPE, body)
    }))
}

fn too_many_followers() -> Response<Body> {
    let line = format!("{MOST_FOLLOWERS} followers are the most\n");
    text(StatusCode::SERVICE_UNAVAILABLE, line)
}

fn readiness(source: &Source, rows: &Rows) -> Response<Body> {
    let reason = if source.is_draining() {
        "stopping: no new connections are accepted"
    } else if rows.footing.serves() {
        return text(StatusCode::OK, "ready\n");
    } else {
        rows.backend.reason.as_deref().unwrap_or_default()
    };
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

/// The page or the CSV, at any path: `HAProxy`'s clients ask for `/;csv`,
/// `/haproxy?stats;csv` and more.
fn statistics(source: &Source, uri: &str, now: Instant) -> Response<Body> {
    let mut rows = rows(source, now);
    let options = Options::of(uri);
    if options.hides_any() {
        rows.hide(|status| options.hides(status));
    }
    if uri.contains(";csv") {
        return text(StatusCode::OK, csv::render(&rows));
    }
    let page = page::render(source, &rows, options, now);
    let response = response(StatusCode::OK, "text/html; charset=utf-8", whole(page));
    // Nothing on the page comes from elsewhere, and nothing may.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    let response = with(response, header::CONTENT_SECURITY_POLICY, policy);
    if options.norefresh {
        response
    } else {
        with(response, header::REFRESH, page::REFRESH)
    }
}

/// Whether the request has the user and the password, where they are asked for.
fn is_allowed<B>(source: &Source, request: &Request<B>) -> bool {
    let Some((user, password)) = &source.auth else {
        return true;
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| BASE64_STANDARD.decode(encoded.trim()).ok());
    given.is_some_and(|given| same(&given, format!("{user}:{password}").as_bytes()))
}

/// Compares in a time that tells nothing but the length: a comparison that
/// ends at the first difference lets a password be guessed byte by byte.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let differences = given
        .iter()
        .zip(expected)
        .fold(0, |found, (a, b)| std::hint::black_box(found | (a ^ b)));
    given.len() == expected.len() && differences == 0
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    response(status, "text/plain; charset=utf-8", whole(body))
}

fn as_json(body: String) -> Response<Body> {
    response(StatusCode::OK, "application/json", whole(body))
}

fn whole(body: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(body.into()))
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let response = with(response, header::CONTENT_TYPE, content_type);
    let response = with(response, header::CACHE_CONTROL, "no-cache");
    with(response, header::X_CONTENT_TYPE_OPTIONS, "nosniff")
}

fn with(
    mut response: Response<Body>,
    name: header::HeaderName,
    value: &'static str,
) -> Response<Body> {
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed};

    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
    };

    use super::*;
    use crate::{pool::state::Sign, stats::fixture};

    /// The answer to a request that comes alone.
    fn respond<B>(source: &Source, request: &Request<B>) -> Response<Body> {
        let followers = Followers::new(CancellationToken::new());
        super::respond(
            source,
            &followers,
            &Lease::new(CONNECTION_LIFETIME),
            request,
        )
    }

    async fn ask(source: &Source, uri: &str) -> (StatusCode, String) {
        let request = Request::get(uri).body(()).unwrap();
        let response = respond(source, &request);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn csv_is_found_wherever_haproxys_clients_ask_for_it() {
        let source = fixture::source();
        for uri in [
            "/;csv",
            "/;csv;norefresh",
            "/haproxy?stats;csv",
            "/?stats/;csv",
        ] {
            let (status, body) = ask(&source, uri).await;
            assert_eq!(status, StatusCode::OK);
            assert!(body.starts_with("# pxname,svname,"), "{uri}");
        }
    }

    #[tokio::test]
    async fn maintenance_can_be_hidden_from_the_page_and_the_csv() {
        let source = fixture::tended();
        for uri in ["/;csv", "/"] {
            let (_, everyone) = ask(&source, uri).await;
            assert!(
                everyone.contains("m1") && everyone.contains("MAINT"),
                "{uri}"
            );
            let (_, tended) = ask(&source, &format!("{uri};no-maint")).await;
            assert!(!tended.contains("m1") && tended.contains("q1"), "{uri}");
            assert!(tended.contains("UP (2/4)"), "{uri}");
        }
    }

    #[tokio::test]
    async fn events_are_asked_for_from_a_number_on() {
        let source = fixture::source();
        for server in ["s1", "s2"] {
            let found = fixture::found_down(server, Sign::Traffic, Duration::from_millis(3));
            source.pool.timeline().add(found);
        }
        let (_, all) = ask(&source, "/v1/events").await;
        assert!(all.contains("\"s1\"") && all.contains("\"s2\""));
        let (_, later) = ask(&source, "/v1/events?after=1").await;
        assert!(!later.contains("\"s1\"") && later.contains("\"s2\""));
        let (status, line) = ask(&source, "/v1/events?after=soon").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(line.lines().count(), 1);
    }

    #[tokio::test]
    async fn any_other_path_is_the_page() {
        let source = fixture::source();
        for uri in ["/", "/haproxy?stats", "/favicon.ico"] {
            let (status, body) = ask(&source, uri).await;
            assert_eq!(status, StatusCode::OK);
            assert!(body.contains("Statistics Report"), "{uri}");
        }
    }

    #[tokio::test]
    async fn the_page_comes_again_unless_it_is_told_not_to() {
        let source = fixture::source();
        let refresh = |uri: &str| {
            let response = respond(&source, &Request::get(uri).body(()).unwrap());
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
            response.headers().get(header::REFRESH).cloned()
        };
        assert_eq!(refresh("/").unwrap(), "5");
        assert_eq!(refresh("/;norefresh"), None);
        assert_eq!(refresh("/;csv"), None);
    }

    #[tokio::test]
    async fn a_balancer_is_ready_while_a_server_can_take_traffic() {
        let (status, body) = ask(&fixture::empty(), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "there are no servers\n");
        let source = fixture::source();
        let ready = (StatusCode::OK, "ready\n".into());
        assert_eq!(ask(&source, "/readyz").await, ready);
        source.draining.store(true, Relaxed);
        let (status, body) = ask(&source, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.starts_with("stopping"));
        assert_eq!(ask(&source, "/healthz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn only_get_and_head_are_answered() {
        let request = Request::post("/").body(()).unwrap();
        let response = respond(&fixture::source(), &request);
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
    }

    #[tokio::test]
    async fn with_a_password_only_the_probes_are_open() {
        let mut source = fixture::empty();
        source.auth = Some(("ops".into(), "s3cret".into()));
        let status = |uri: &str, credentials: Option<&str>| {
            let mut request = Request::get(uri);
            if let Some(credentials) = credentials {
                let value = format!("Basic {}", BASE64_STANDARD.encode(credentials));
                request = request.header(header::AUTHORIZATION, value);
            }
            respond(&source, &request.body(()).unwrap()).status()
        };
        for uri in [
            "/",
            "/;csv",
            "/metrics",
            "/v1/servers",
            "/v1/events",
            "/v1/events?follow",
        ] {
            assert_eq!(status(uri, None), StatusCode::UNAUTHORIZED);
            assert_eq!(status(uri, Some("ops:s3cre")), StatusCode::UNAUTHORIZED);
            assert_eq!(status(uri, Some("ops:s3creT")), StatusCode::UNAUTHORIZED);
            assert_eq!(status(uri, Some("ops:s3cret")), StatusCode::OK);
        }
        assert_eq!(status("/healthz", None), StatusCode::OK);
        assert_eq!(status("/readyz", None), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn it_serves_over_a_listener_until_it_is_told_to_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(run(listener, fixture::source(), async {
            stopped.await.unwrap();
        }));
        for (uri, content_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/;csv", "text/plain; charset=utf-8"),
            ("/metrics", "text/plain; version=0.0.4"),
            ("/v1/servers", "application/json"),
            ("/v1/members", "application/json"),
            ("/v1/events", "application/json"),
            ("/healthz", "text/plain; charset=utf-8"),
        ] {
            let (head, body) = exchange(addr, "GET", uri).await;
            assert!(head.starts_with("http/1.1 200 ok\r\n"), "{uri}: {head}");
            assert!(
                head.contains(&format!("content-type: {content_type}\r\n")),
                "{head}"
            );
            assert!(!body.is_empty());
            let (of_head, none) = exchange(addr, "HEAD", uri).await;
            assert!(
                of_head.starts_with("http/1.1 200 ok\r\n"),
                "{uri}: {of_head}"
            );
            assert_eq!(none, "");
        }
        assert!(
            exchange(addr, "GET", "/v1/nothing")
                .await
                .0
                .starts_with("http/1.1 404")
        );
        stop.send(()).unwrap();
        server.await.unwrap();
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_its_request_is_let_go() {
        let addr = serving().await;
        let mut slow = TcpStream::connect(addr).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let begun = Instant::now();
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).await.unwrap();
        assert!(begun.elapsed() <= HEADER_TIMEOUT + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_flood_of_idle_connections_is_bounded_and_passes() {
        let addr = serving().await;
        let mut flood = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            flood.push(TcpStream::connect(addr).await.unwrap());
        }
        let mut one_too_many = TcpStream::connect(addr).await.unwrap();
        assert_eq!(one_too_many.read(&mut [0]).await.unwrap_or(0), 0);
        drop(flood);
        // The server has to notice that they are gone.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (head, _) = exchange(addr, "GET", "/healthz").await;
        assert!(head.starts_with("http/1.1 200"));
    }

    async fn serving() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(run(listener, fixture::source(), std::future::pending()));
        addr
    }

    async fn exchange(addr: SocketAddr, method: &str, uri: &str) -> (String, String) {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("{method} {uri} HTTP/1.1\r\nHost: ha\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (format!("{head}\r\n").to_lowercase(), body.into())
    }
}
