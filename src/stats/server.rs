//! The HTTP server of the statistics: a few routes, and the page at all
//! others.

use std::{convert::Infallible, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    balancer, csv,
    events::{self, Query},
    follow::{self, Followers, MOST_FOLLOWERS},
    json,
    live::{Live, MOST_VIEWERS},
    page::{self, Kind, Options, Outcome},
    prometheus,
    source::Source,
    steer::{self, Undo},
    stream, typed,
    view::{Rows, rows},
};
use crate::desk::http::{self as server, Visit};

/// Connections at a time: many browsers and scrapers, and a bound on what a
/// flood of them may hold.
const MOST_CONNECTIONS: usize = 256;

/// A response's body: all there is to say, or what goes on as it happens.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What all connections share.
struct Desk {
    source: Arc<Source>,
    followers: Followers,
    live: Arc<Live>,
    undo: Undo,
}

impl Desk {
    fn new(source: Arc<Source>, ending: &CancellationToken) -> Self {
        Self {
            followers: Followers::new(ending.clone()),
            live: Arc::new(Live::new(Arc::clone(&source), ending.clone())),
            undo: Undo::default(),
            source,
        }
    }
}

/// Serves the statistics until `shutdown`, then ends the responses that are
/// under way.
pub async fn run(listener: TcpListener, source: Arc<Source>, shutdown: impl Future<Output = ()>) {
    let ending = CancellationToken::new();
    let desk = Arc::new(Desk::new(source, &ending));
    let live = Arc::clone(&desk.live);
    let answer = move |request: Request<Incoming>, visit: Visit| {
        let desk = Arc::clone(&desk);
        async move { respond(&desk, &visit, request).await }
    };
    tokio::join!(
        server::serve(listener, MOST_CONNECTIONS, ending.clone(), answer),
        live.run(),
        async {
            shutdown.await;
            ending.cancel();
        }
    );
}

/// Answers a request.
async fn respond<B>(desk: &Desk, visit: &Visit, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let source = &*desk.source;
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_page = !is_resource(path);
    if !is_read && !is_page {
        let response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        return with(response, header::ALLOW, "GET, HEAD");
    }
    let now = Instant::now();
    match path {
        // Orchestrators ask these and have no password.
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(source, &rows(source, now)),
        _ if !is_allowed(source, &request) => {
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
        "/v1/events" => events(source, &desk.followers, visit, &request)
            .unwrap_or_else(|wrong| text(StatusCode::BAD_REQUEST, wrong)),
        _ if !is_page => text(StatusCode::NOT_FOUND, "no such resource\n"),
        _ if is_read => statistics(desk, visit, &request, now),
        _ => steered(desk, request).await,
    }
}

/// Whether a path is one of ours; every other one is the page.
fn is_resource(path: &str) -> bool {
    matches!(path, "/metrics" | "/healthz" | "/readyz") || path.starts_with("/v1/")
}

/// What happened, or what happens from now on; an error is what is wrong with
/// the request.
fn events<B>(
    source: &Source,
    followers: &Followers,
    visit: &Visit,
    request: &Request<B>,
) -> Result<Response<Body>, &'static str> {
    let timeline = source.pool.timeline();
    let query = Query::of(request.uri().query().unwrap_or_default())?;
    if !follow::is_asked_for(query, request.headers()) {
        let after = query.after.unwrap_or_default();
        return Ok(as_json(events::render(timeline, after)));
    }
    let last_seen = follow::last_seen(query, request.headers())?;
    let stream = followers.begin(timeline, last_seen, visit);
    Ok(stream.map_or_else(too_many_followers, |stream| {
        response(StatusCode::OK, stream::CONTENT_TYPE, stream.boxed_unsync())
    }))
}

fn too_many_followers() -> Response<Body> {
    let line = format!("{MOST_FOLLOWERS} followers are the most, half of them from one address\n");
    text(StatusCode::SERVICE_UNAVAILABLE, line)
}

fn readiness(source: &Source, rows: &Rows) -> Response<Body> {
    let reason = if source.is_draining() {
        "stopping: no new connections are accepted"
    } else if !(source.accepts)() {
        "the frontend is disabled: no new connections are accepted"
    } else if rows.footing.serves() {
        return text(StatusCode::OK, "ready\n");
    } else {
        rows.backend.reason.as_deref().unwrap_or_default()
    };
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

/// The page and its parts, and `HAProxy`'s other forms of it, at any path.
fn statistics<B>(desk: &Desk, visit: &Visit, request: &Request<B>, now: Instant) -> Response<Body> {
    let options = Options::of(&request.uri().to_string());
    let asset = |content_type, text: &'static str| {
        let response = response(StatusCode::OK, content_type, whole(text));
        // Their addresses change with them.
        with(response, header::CACHE_CONTROL, "max-age=604800")
    };
    match options.kind {
        Kind::Page => the_page(desk, &options),
        Kind::Live => viewed(desk, visit, request, &options),
        Kind::Csv | Kind::Typed => text(StatusCode::OK, listed(&desk.source, &options, now)),
        Kind::Json => as_json(listed(&desk.source, &options, now)),
        Kind::JsonSchema => as_json(typed::SCHEMA.into()),
        Kind::Style => asset("text/css; charset=utf-8", page::STYLE),
        Kind::Script => asset("text/javascript; charset=utf-8", page::SCRIPT),
        Kind::Icon => asset("image/svg+xml", page::ICON),
    }
}

fn the_page(desk: &Desk, options: &Options) -> Response<Body> {
    let (scene, name) = desk.live.look();
    let page = page::render(&desk.source, &scene, &name, options);
    let response = response(StatusCode::OK, "text/html; charset=utf-8", whole(page));
    // Nothing on the page comes from elsewhere, nor is written into it, and
    // nothing may be.
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                  connect-src 'self'; form-action 'self'; base-uri 'none'; \
                  frame-ancestors 'none'";
    let response = with(response, header::CONTENT_SECURITY_POLICY, policy);
    with(response, header::REFERRER_POLICY, "same-origin")
}

/// What changes on the page from now on.
fn viewed<B>(
    desk: &Desk,
    visit: &Visit,
    request: &Request<B>,
    options: &Options,
) -> Response<Body> {
    let last = request.headers().get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok());
    let shown = last.or(options.since.as_deref());
    let Some(stream) = desk.live.begin(shown, visit) else {
        let line = format!("{MOST_VIEWERS} viewers are the most, half of them from one address\n");
        return text(StatusCode::SERVICE_UNAVAILABLE, line);
    };
    response(StatusCode::OK, stream::CONTENT_TYPE, stream.boxed_unsync())
}

/// The rows that a request asks for, in one of `HAProxy`'s forms.
fn listed(source: &Source, options: &Options, now: Instant) -> String {
    let mut rows = rows(source, now);
    options.hide(&mut rows);
    let rows = rows.iter().filter(|row| options.covers(&row.proxy));
    match options.kind {
        Kind::Typed => typed::lines(rows, false),
        Kind::Json => typed::json(rows),
        _ => {
            let mut out = csv::header();
            rows.for_each(|row| csv::line(row, &mut out));
            out
        }
    }
}

/// Does what a form asks for, and says how that went: to a script in JSON, to
/// a browser by the page's address, as `HAProxy` does.
async fn steered<B>(desk: &Desk, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let (head, body) = request.into_parts();
    let source = &desk.source;
    // A browser sends no password to a name that it was not given for.
    let is_ours =
        source.auth.is_some() || steer::is_called_by_name(&head.headers, &source.process.node);
    let (outcome, undo) = match &source.declare {
        Some(_) if !is_ours => (Outcome::Misnamed, None),
        _ if head.method != Method::POST => (Outcome::Unsupported, None),
        Some(declare) if steer::is_own(&head.headers) => {
            let body = Limited::new(body, steer::MOST_BYTES).collect().await;
            match body {
                Ok(form) => {
                    let form = form.to_bytes();
                    steer::perform(source, declare, &desk.undo, &form).await
                }
                Err(_) => (Outcome::TooLarge, None),
            }
        }
        _ => (Outcome::Denied, None),
    };
    let accept = head.headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/json")) {
        let mut response = as_json(page::outcome_json(outcome, undo));
        if outcome == Outcome::Misnamed {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        return response;
    }
    if outcome == Outcome::Misnamed {
        return text(StatusCode::FORBIDDEN, format!("{}\n", outcome.words()));
    }
    let mut place = Options::of(&head.uri.to_string());
    place.outcome = Some(outcome);
    place.undo = undo;
    let mut response = text(StatusCode::SEE_OTHER, "");
    if let Ok(place) = HeaderValue::try_from(place.link()) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
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
    Full::new(body.into()).boxed_unsync()
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
    use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpSocket, TcpStream},
        sync::oneshot,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{
        desk::{http::HEADER_TIMEOUT, places::Places},
        pool::state::Sign,
        stats::fixture,
    };

    /// The answer to a request that comes alone.
    async fn respond(source: &Arc<Source>, request: Request<String>) -> Response<Body> {
        let ending = CancellationToken::new();
        let desk = Desk::new(Arc::clone(source), &ending);
        let place = Places::new(1).admit(None).await;
        super::respond(&desk, &Visit::new(place), request).await
    }

    fn get(uri: &str) -> Request<String> {
        Request::get(uri).body(String::new()).unwrap()
    }

    async fn ask(source: &Arc<Source>, uri: &str) -> (StatusCode, String) {
        let response = respond(source, get(uri)).await;
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
        let source = Arc::new(fixture::tended());
        for uri in ["/;csv", "/"] {
            let (_, everyone) = ask(&source, uri).await;
            assert!(
                everyone.contains("m1") && everyone.contains("MAINT"),
                "{uri}"
            );
            let (_, tended) = ask(&source, &format!("{uri};no-maint")).await;
            assert!(!tended.contains("m1") && tended.contains("q1"), "{uri}");
            assert!(tended.contains("(2/4)"), "{uri}");
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_address_is_too_strange(
            path in "(/|;|[a-z%=&?.é-]|;up|;csv|;json|;live|;typed|;st=|scope=|filter=|v1/|metrics){0,12}"
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let Ok(request) = Request::get(format!("/{path}")).body(String::new()) else {
                    return;
                };
                respond(&fixture::source(), request).await;
            });
        }
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
    async fn the_page_comes_again_where_no_script_keeps_it_live_unless_it_is_told_not_to() {
        let source = fixture::source();
        let refresh = "<noscript><meta http-equiv=\"refresh\"";
        assert!(ask(&source, "/").await.1.contains(refresh));
        assert!(!ask(&source, "/;norefresh").await.1.contains(refresh));
    }

    #[tokio::test]
    async fn nothing_on_the_page_is_written_into_it() {
        let source = fixture::source();
        let response = respond(&source, get("/")).await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].clone();
        assert!(!policy.to_str().unwrap().contains("unsafe"));
        let (_, page) = ask(&source, "/").await;
        assert!(
            !page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick")
        );
        for (uri, kind) in [
            ("/;page.css", "text/css; charset=utf-8"),
            ("/lb/;page.js?x", "text/javascript; charset=utf-8"),
            ("/;icon.svg", "image/svg+xml"),
        ] {
            let response = respond(&source, get(uri)).await;
            assert_eq!(response.headers()[header::CONTENT_TYPE], kind);
        }
    }

    #[tokio::test]
    async fn a_scope_leaves_out_whole_proxies_on_every_surface() {
        let source = fixture::source();
        for uri in ["/;csv;scope=localn", "/;json;scope=localn"] {
            let (_, body) = ask(&source, uri).await;
            assert!(
                body.contains("FRONTEND") && !body.contains("BACKEND"),
                "{uri}"
            );
        }
        let (_, page) = ask(&source, "/?scope=localn").await;
        assert!(page.contains("localnodes/FRONTEND") && !page.contains("nodes/BACKEND"));
        let (_, page) = ask(&source, "/?filter=s2").await;
        assert!(page.contains("id=\"nodes/s2\"") && !page.contains("id=\"nodes/s1\""));
    }

    #[tokio::test]
    async fn a_balancer_is_ready_while_a_server_can_take_traffic() {
        let (status, body) = ask(&Arc::new(fixture::empty()), "/readyz").await;
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
    async fn what_is_not_the_page_is_only_read() {
        for path in ["/metrics", "/v1/servers", "/healthz"] {
            let request = Request::post(path).body(String::new()).unwrap();
            let response = respond(&fixture::source(), request).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
        }
    }

    /// Where a form leads.
    async fn post(source: &Arc<Source>, origin: &str, form: &str) -> String {
        let request = Request::post("/;up").header("host", "ha:1936");
        let request = request.header("origin", origin).body(form.to_owned());
        let response = respond(source, request.unwrap()).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        response.headers()[header::LOCATION]
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_form_is_obeyed_where_the_page_may_steer_and_from_the_page_alone() {
        let form = "s=s1&s=s2&action=drain&b=%234";
        let own = "http://ha:1936";
        let denied = "./;up;st=DENY";
        assert_eq!(post(&fixture::source(), own, form).await, denied);
        let mut source = fixture::empty();
        source.declare = Some(Box::new(|_, _, _| Ok(())));
        let source = Arc::new(source);
        assert_eq!(post(&source, "http://evil.example", form).await, denied);
        assert_eq!(post(&source, own, form).await, "./;up;st=ERRP");
        assert_eq!(post(&source, own, "b=nodes").await, "./;up;st=ERRP");
        let huge = "s=s1&".repeat(steer::MOST_BYTES);
        assert_eq!(post(&source, own, &huge).await, "./;up;st=EXCD");
        let request = Request::put("/").header("host", "ha");
        let response = respond(&source, request.body(String::new()).unwrap()).await;
        assert_eq!(response.headers()[header::LOCATION], "./;st=IVAL");
    }

    #[tokio::test(start_paused = true)]
    async fn a_form_under_a_strangers_name_takes_a_password() {
        let steered = || {
            let mut source = fixture::empty();
            source.declare = Some(Box::new(|_, _, _| Ok(())));
            source
        };
        let (open, mut closed) = (Arc::new(steered()), steered());
        closed.auth = Some(("ops".into(), "s3cret".into()));
        let closed = Arc::new(closed);
        let ask = async |source: &Arc<Source>, accept: &str| {
            // As a browser sends it whose user has been lured: the page comes
            // from that name, so to the browser it is our own.
            let request = Request::post("/")
                .header("host", "evil.example:1936")
                .header("origin", "http://evil.example:1936")
                .header("sec-fetch-site", "same-origin")
                .header("accept", accept)
                .header("authorization", "Basic b3BzOnMzY3JldA==");
            let request = request.body("b=nodes&action=drain&s=s1".to_owned());
            let response = respond(source, request.unwrap()).await;
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.into()).unwrap())
        };
        for accept in ["text/html", "application/json"] {
            let (status, said) = ask(&open, accept).await;
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(said.contains("--stats-auth"), "{said}");
            assert_eq!(said.lines().count(), 1);
            assert_ne!(ask(&closed, accept).await.0, StatusCode::FORBIDDEN);
        }
    }

    #[tokio::test]
    async fn with_a_password_only_the_probes_are_open() {
        let mut source = fixture::empty();
        source.auth = Some(("ops".into(), "s3cret".into()));
        source.declare = Some(Box::new(|_, _, _| Ok(())));
        let source = Arc::new(source);
        let status = async |method: Method, uri: &str, credentials: Option<&str>| {
            let mut request = Request::builder().method(method).uri(uri);
            if let Some(credentials) = credentials {
                let value = format!("Basic {}", BASE64_STANDARD.encode(credentials));
                request = request.header(header::AUTHORIZATION, value);
            }
            let request = request.body(String::new()).unwrap();
            respond(&source, request).await.status()
        };
        for uri in [
            "/",
            "/;csv",
            "/;live",
            "/metrics",
            "/v1/servers",
            "/v1/events",
            "/v1/events?follow",
        ] {
            for wrong in [None, Some("ops:s3cre"), Some("ops:s3creT")] {
                let status = status(Method::GET, uri, wrong).await;
                assert_eq!(status, StatusCode::UNAUTHORIZED);
            }
            let status = status(Method::GET, uri, Some("ops:s3cret")).await;
            assert_eq!(status, StatusCode::OK);
        }
        let posted = status(Method::POST, "/", None).await;
        assert_eq!(posted, StatusCode::UNAUTHORIZED);
        assert_eq!(status(Method::GET, "/healthz", None).await, StatusCode::OK);
        let ready = status(Method::GET, "/readyz", None).await;
        assert_eq!(ready, StatusCode::SERVICE_UNAVAILABLE);
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
            ("/;typed", "text/plain; charset=utf-8"),
            ("/;json", "application/json"),
            ("/;json-schema", "application/json"),
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

    /// Waits until one of them is closed, and takes it out.
    async fn one_goes(flood: &mut Vec<TcpStream>) {
        let is_gone = |client: &TcpStream| matches!(client.try_read(&mut [0]), Ok(0));
        loop {
            if let Some(index) = flood.iter().position(is_gone) {
                drop(flood.remove(index));
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_out_whoever_holds_them() {
        let addr = serving().await;
        let connect = async |from: &str| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(from.parse().unwrap()).unwrap();
            socket.connect(addr).await.unwrap()
        };
        let mut flood = Vec::new();
        for from in ["127.0.0.1:0", "127.0.0.2:0"] {
            for _ in 0..MOST_CONNECTIONS / 2 {
                flood.push(connect(from).await);
            }
            // One address has no more than half.
            flood.push(connect(from).await);
            one_goes(&mut flood).await;
            assert!(flood.len() <= MOST_CONNECTIONS);
        }
        for uri in ["/healthz", "/readyz", "/metrics"] {
            let (head, _) = exchange(addr, "GET", uri).await;
            assert!(head.starts_with("http/1.1 200"), "{uri}: {head}");
        }
    }

    #[tokio::test]
    async fn who_follows_is_not_sent_away_by_who_does_nothing() {
        let addr = serving().await;
        let mut viewer = TcpStream::connect(addr).await.unwrap();
        viewer
            .write_all(b"GET /;live HTTP/1.1\r\nHost: ha\r\n\r\n")
            .await
            .unwrap();
        let mut seen = vec![0; 4096];
        assert_ne!(viewer.read(&mut seen).await.unwrap(), 0);
        let mut flood = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            flood.push(TcpStream::connect(addr).await.unwrap());
        }
        let (head, _) = exchange(addr, "GET", "/healthz").await;
        assert!(head.starts_with("http/1.1 200"));
        // A scene comes every second.
        for _ in 0..2 {
            seen.clear();
            while !seen.ends_with(b"\n\n\r\n") {
                assert_ne!(viewer.read_buf(&mut seen).await.unwrap(), 0, "the end");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_too_long_is_refused() {
        let addr = serving().await;
        let mut client = TcpStream::connect(addr).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(64 * 1024));
        client.write_all(head.as_bytes()).await.unwrap();
        let mut said = [0; 12];
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 431");
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
