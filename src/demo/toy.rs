//! The toy server: the lab's web application in small.
//!
//! It answers with JSON that says which server answered and how often this
//! session came, keeps sessions by a cookie of its own, and can be slowed
//! down. A few more paths make it useful for tests.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fs::File,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::{Pin, pin},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use cookie::Cookie;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{app::busy, host, net};

/// The session cookie's name, as the lab's application has it.
const COOKIE: &str = "NODESESSID";

/// The most sessions kept; the oldest is forgotten for a new one.
const MAX_SESSIONS: usize = 100_000;

/// How long open requests may take once it is told to end.
const FINISH: Duration = Duration::from_secs(5);

/// The largest body that is read whole: of `POST /delay`, and of what is
/// recorded.
const MAX_BODY: usize = 4096;

/// Where the process id is told, for who wants to kill it.
pub(super) const PID_HEADER: &str = "x-app-pid";

type ToyBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// Serves at `listen` under `name` until SIGTERM or SIGINT. The body of each
/// POST to a page is appended to `record`, a line each, before the answer.
pub async fn run(
    listen: SocketAddr,
    name: String,
    record: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let listener = net::bind_alone(listen).map_err(|err| busy("--listen", listen, &err))?;
    let listener = TcpListener::from_std(listener)?;
    let mut toy = Toy::new(name);
    if let Some(path) = record {
        let file = File::options().append(true).create(true).open(path);
        toy.record = Some(file.with_context(|| format!("--record {}", path.display()))?);
    }
    serve(listener, toy, host::told_to_end()).await;
    Ok(ExitCode::SUCCESS)
}

/// Serves until `told`; then finishes the requests that are open.
pub(super) async fn serve(listener: TcpListener, toy: Toy, told: impl Future<Output = ()>) {
    let toy = Arc::new(toy);
    let ending = CancellationToken::new();
    let connections = TaskTracker::new();
    let mut told = pin!(told);
    loop {
        tokio::select! {
            (stream, _) = net::accept(&listener) => {
                connections.spawn(converse(stream, Arc::clone(&toy), ending.clone()));
            }
            () = &mut told => break,
        }
    }
    drop(listener);
    ending.cancel();
    connections.close();
    if timeout(FINISH, connections.wait()).await.is_err() {
        tracing::warn!("requests are still open after {FINISH:?}; ending all the same");
    }
}

/// Serves one connection.
async fn converse(stream: TcpStream, toy: Arc<Toy>, ending: CancellationToken) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let ip = local.ip().to_canonical();
    let service = service_fn(|request| {
        let toy = Arc::clone(&toy);
        async move { Ok::<_, Infallible>(toy.answer(request, ip).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // A client that breaks off is nothing to report here.
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

/// The toy's state.
#[derive(Debug)]
pub(super) struct Toy {
    name: String,
    /// Milliseconds that each answer is late.
    delay: AtomicU32,
    // Held for a look-up, never across an await.
    sessions: Mutex<Sessions>,
    /// Where the bodies of POSTs are written.
    record: Option<File>,
}

/// What a page view is answered with, in the lab's field names and order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    hello: &'static str,
    ip: IpAddr,
    host: &'a str,
    tag: &'a str,
    session_views: u64,
    id: &'a str,
}

#[derive(Serialize)]
struct Message {
    message: String,
}

#[derive(Deserialize)]
struct Delay {
    delay: u32,
}

#[derive(Serialize)]
struct Count {
    bytes: u64,
    fnv: String,
}

impl Toy {
    /// A toy that calls itself `name`.
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            delay: AtomicU32::new(0),
            sessions: Mutex::new(Sessions::new(MAX_SESSIONS)),
            record: None,
        }
    }

    async fn answer(&self, request: Request<Incoming>, ip: IpAddr) -> Response<ToyBody> {
        let path = request.uri().path();
        let method = request.method();
        if method == Method::POST && path == "/delay" {
            return self.set_delay(request.into_body()).await;
        }
        let delay = self.delay.load(Relaxed);
        if delay > 0 {
            sleep(Duration::from_millis(delay.into())).await;
        }
        if let Some(length) = path.strip_prefix("/bytes/") {
            return bytes(length);
        }
        match (method, path) {
            (&(Method::POST | Method::PUT), "/echo") => echo(request),
            (&Method::POST, "/count") => count(request.into_body()).await,
            (&Method::POST, _) => self.execute(request, ip).await,
            _ => self.view(request.headers(), ip),
        }
    }

    /// A page view that does something, as a purchase would.
    async fn execute(&self, request: Request<Incoming>, ip: IpAddr) -> Response<ToyBody> {
        let (head, body) = request.into_parts();
        if let Some(mut record) = self.record.as_ref() {
            let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
                let message = "too much to record".into();
                return json(StatusCode::BAD_REQUEST, &Message { message });
            };
            // One write a line: several servers may share the file.
            let line = [&body.to_bytes(), b"\n".as_slice()].concat();
            if let Err(err) = record.write_all(&line) {
                let message = format!("cannot be recorded: {err}");
                return json(StatusCode::INTERNAL_SERVER_ERROR, &Message { message });
            }
        }
        self.view(&head.headers, ip)
    }

    fn view(&self, headers: &HeaderMap, ip: IpAddr) -> Response<ToyBody> {
        let known = session_of(headers);
        let visit = self
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .visit(known.as_deref());
        let mut response = json(
            StatusCode::OK,
            &View {
                hello: "world!",
                ip,
                host: &self.name,
                tag: &self.name,
                session_views: visit.views,
                id: &visit.id,
            },
        );
        let headers = response.headers_mut();
        headers.insert(PID_HEADER, std::process::id().into());
        if visit.views == 1 {
            let cookie = Cookie::build((COOKIE, visit.id)).path("/").http_only(true);
            if let Ok(value) = cookie.to_string().parse() {
                headers.insert(header::SET_COOKIE, value);
            }
        }
        response
    }

    async fn set_delay(&self, body: Incoming) -> Response<ToyBody> {
        let body = Limited::new(body, MAX_BODY).collect().await;
        let wanted = body
            .ok()
            .and_then(|body| serde_json::from_slice::<Delay>(&body.to_bytes()).ok());
        let Some(Delay { delay }) = wanted else {
            let message = r#"expected JSON such as {"delay": 250}, in milliseconds"#.into();
            return json(StatusCode::BAD_REQUEST, &Message { message });
        };
        self.delay.store(delay, Relaxed);
        let message = format!("New timeout of {delay}ms configured.");
        json(StatusCode::OK, &Message { message })
    }
}

fn session_of(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == COOKIE)
        .map(|cookie| cookie.value().to_owned())
}

/// `GET /bytes/N`: N bytes, the same for every server.
fn bytes(length: &str) -> Response<ToyBody> {
    let Ok(length) = length.parse() else {
        let message = "expected /bytes/N".into();
        return json(StatusCode::BAD_REQUEST, &Message { message });
    };
    let mut response = Response::new(Pattern::new(length).boxed_unsync());
    let octets = header::HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    response
}

/// Streams a request's body back.
fn echo(request: Request<Incoming>) -> Response<ToyBody> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(body.boxed_unsync());
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

/// Says how long a request's body was, and its hash (FNV-1a, 64 bits).
async fn count(mut body: Incoming) -> Response<ToyBody> {
    let mut bytes = 0;
    let mut hash = FNV_START;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            let message = "the body broke off".into();
            return json(StatusCode::BAD_REQUEST, &Message { message });
        };
        if let Some(data) = frame.data_ref() {
            bytes += data.len() as u64;
            hash = fnv(hash, data);
        }
    }
    let fnv = format!("{hash:016x}");
    json(StatusCode::OK, &Count { bytes, fnv })
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(start: u64, data: &[u8]) -> u64 {
    data.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<ToyBody> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let body = Full::from(text)
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Sessions, at most so many.
#[derive(Debug)]
struct Sessions {
    views: HashMap<String, u64>,
    /// In the order they began.
    order: VecDeque<String>,
    most: usize,
}

/// A visit in a session.
#[derive(Debug)]
struct Visit {
    id: String,
    /// Visits in this session so far, this one included.
    views: u64,
}

impl Sessions {
    fn new(most: usize) -> Self {
        Self {
            views: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    /// Counts a visit; a session that is not known here begins anew, under
    /// another id.
    fn visit(&mut self, known: Option<&str>) -> Visit {
        if let Some(id) = known
            && let Some(views) = self.views.get_mut(id)
        {
            *views += 1;
            return Visit {
                id: id.to_owned(),
                views: *views,
            };
        }
        if self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.views.remove(&oldest);
        }
        let id = format!("{:032x}", rand::random::<u128>());
        self.views.insert(id.clone(), 1);
        self.order.push_back(id.clone());
        Visit { id, views: 1 }
    }
}

/// A body of so many bytes, byte `i` being `i % 251`. All chunks are slices
/// of one, so a large body takes no more memory than a small one.
struct Pattern {
    left: u64,
    chunk: Bytes,
}

impl Pattern {
    /// A prime, so that a byte lost or doubled anywhere shows.
    const PERIOD: usize = 251;
    const CHUNK: usize = 256 * Self::PERIOD;

    fn new(length: u64) -> Self {
        let chunk: Vec<u8> = (0..Self::CHUNK).map(|i| (i % Self::PERIOD) as u8).collect();
        Self {
            left: length,
            chunk: chunk.into(),
        }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.left.min(Self::CHUNK as u64);
        self.left -= length;
        let chunk = self.chunk.slice(..length as usize);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use serde_json::{Value, json};
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// A toy that serves on loopback.
    struct Served {
        addr: SocketAddr,
        end: CancellationToken,
        task: AbortOnDropHandle<()>,
    }

    async fn start() -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let told = end.clone().cancelled_owned();
        let task = tokio::spawn(serve(listener, Toy::new("s1".into()), told));
        Served {
            addr,
            end,
            task: AbortOnDropHandle::new(task),
        }
    }

    impl Served {
        async fn ask(&self, request: http::request::Builder, body: Vec<u8>) -> Response<Bytes> {
            let stream = TcpStream::connect(self.addr).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
            let _driven = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
            let request = request
                .header("host", "toy")
                .body(Full::<Bytes>::from(body))
                .unwrap();
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            Response::from_parts(head, body.collect().await.unwrap().to_bytes())
        }

        async fn get(&self, path: &str, cookie: &str) -> Response<Bytes> {
            self.ask(Request::get(path).header("cookie", cookie), Vec::new())
                .await
        }

        async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Response<Bytes> {
            self.ask(Request::post(path), body.into()).await
        }
    }

    fn value(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[tokio::test]
    async fn a_session_is_kept_by_its_cookie_and_counts_its_views() {
        let toy = start().await;
        let first = toy.get("/", "").await;
        let cookie = first.headers()["set-cookie"].to_str().unwrap();
        let (cookie, attributes) = cookie.split_once("; ").unwrap();
        assert!(attributes.contains("HttpOnly") && attributes.contains("Path=/"));
        let id = cookie.strip_prefix("NODESESSID=").unwrap();
        assert_eq!(
            value(&first),
            json!({"hello": "world!", "ip": "127.0.0.1", "host": "s1", "tag": "s1",
                   "sessionViews": 1, "id": id})
        );

        let second = toy.get("/", &format!("SERVERID=s1; {cookie}")).await;
        assert_eq!(value(&second)["sessionViews"], 2);
        assert!(!second.headers().contains_key("set-cookie"));

        let stranger = toy.get("/", "NODESESSID=of-another-server").await;
        assert_eq!(value(&stranger)["sessionViews"], 1);
        assert!(stranger.headers().contains_key("set-cookie"));
    }

    #[tokio::test]
    async fn a_delay_holds_answers_up_until_it_is_zero_again() {
        let toy = start().await;
        let set = toy.post("/delay", r#"{"delay": 80}"#).await;
        assert_eq!(value(&set)["message"], "New timeout of 80ms configured.");
        let began = tokio::time::Instant::now();
        toy.get("/", "").await;
        assert!(began.elapsed() >= Duration::from_millis(80));

        toy.post("/delay", r#"{"delay": 0}"#).await;
        assert_eq!(toy.post("/delay", "soon").await.status(), 400);
        let began = tokio::time::Instant::now();
        toy.get("/", "").await;
        assert!(began.elapsed() < Duration::from_millis(80));
    }

    #[tokio::test]
    async fn bodies_come_and_go_unchanged() {
        let toy = start().await;
        let length = Pattern::CHUNK + 1000;
        let download = toy.get(&format!("/bytes/{length}"), "").await;
        assert_eq!(download.headers()["content-length"], length.to_string());
        let expected: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        assert!(download.body() == &expected);

        let echoed = toy.post("/echo", expected.clone()).await;
        assert!(echoed.body() == &expected);
        let counted = toy.post("/count", "hello").await;
        assert_eq!(
            value(&counted),
            json!({"bytes": 5, "fnv": "a430d84680aabd0b"})
        );
    }

    #[tokio::test]
    async fn a_head_request_gets_no_body() {
        let toy = start().await;
        let response = toy.ask(Request::head("/"), Vec::new()).await;
        assert_eq!(response.status(), 200);
        assert_ne!(response.headers()["content-length"], "0");
        assert!(response.body().is_empty());
    }

    #[tokio::test]
    async fn an_open_request_is_finished_when_it_is_told_to_end() {
        let toy = start().await;
        toy.post("/delay", r#"{"delay": 300}"#).await;
        let stream = TcpStream::connect(toy.addr).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let _driven = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
        let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request);
        sleep(Duration::from_millis(100)).await;
        toy.end.cancel();
        assert_eq!(response.await.unwrap().status(), 200);
        timeout(FINISH, toy.task).await.expect("it ends").unwrap();
        assert!(TcpStream::connect(toy.addr).await.is_err());
    }

    #[test]
    fn the_oldest_session_makes_room() {
        let mut sessions = Sessions::new(2);
        let first = sessions.visit(None).id;
        let second = sessions.visit(None).id;
        sessions.visit(None);
        assert_eq!(sessions.visit(Some(&second)).views, 2);
        assert_eq!(sessions.visit(Some(&first)).views, 1);
        assert_eq!(sessions.views.len(), 2);
    }
}
