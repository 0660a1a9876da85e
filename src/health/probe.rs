//! One probe: does this server take connections, does it answer well?

use std::{error::Error, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::io::Errno;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    pool::{
        server::{Check, CheckCode, CheckReport},
        transport::Transport,
    },
    proxy_protocol::Header,
    tls::{self, Alpn, Connector},
};

/// What a probe says it is, so that a server's own log tells it from users.
const USER_AGENT: &str = concat!("tidings/", env!("CARGO_PKG_VERSION"));

/// Probes `addr` once, in the way that its transport asks for. Connection and
/// response together may take `limit`.
///
/// `host` is the `host` header of an HTTP check. The response's body is not
/// read: its status is the verdict.
pub async fn probe(
    addr: SocketAddr,
    way: Way<'_>,
    check: &Check,
    host: &str,
    limit: Duration,
) -> CheckReport {
    let started = Instant::now();
    let deadline = started + limit;
    let (code, http_status, info) = look(addr, way, check, host, deadline).await;
    CheckReport {
        code,
        http_status,
        info,
        took: started.elapsed(),
    }
}

type Outcome = (CheckCode, Option<u16>, Option<Box<str>>);

async fn look(
    addr: SocketAddr,
    way: Way<'_>,
    check: &Check,
    host: &str,
    deadline: Instant,
) -> Outcome {
    let http2 = way.transport.http2;
    let stream = match timeout_at(deadline, connect(addr, way.transport)).await {
        Err(_) => return (CheckCode::L4Timeout, None, None),
        Ok(Err(err)) => return (CheckCode::L4Connection, None, Some(in_words(&err))),
        Ok(Ok(stream)) => stream,
    };
    let scheme = if way.tls().is_some() { "https" } else { "http" };
    let request = request(check, http2.then_some(scheme), host);
    let Some(tls) = way.tls() else {
        return match request {
            None => (CheckCode::L4Ok, None, None),
            Some(request) => ask(stream, http2, request, deadline).await,
        };
    };
    let mut stream = match timeout_at(deadline, tls.shake(stream, addr, http2)).await {
        Err(_) => return (CheckCode::L6Timeout, None, None),
        Ok(Err(why)) => return (CheckCode::L6Response, None, Some(why.into())),
        Ok(Ok(stream)) => stream,
    };
    if let Some(request) = request {
        return ask(stream, http2, request, deadline).await;
    }
    // A server may log an end that is not announced as an attack.
    drop(timeout_at(deadline, stream.shutdown()).await);
    (CheckCode::L6Ok, None, None)
}

/// How a server is reached.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// What its tags say.
    pub transport: &'a Transport,
    /// Makes TLS for checks of a server that has it; without it they are not
    /// over TLS.
    pub connector: Option<&'a Connector>,
}

impl Way<'_> {
    /// What makes TLS, if it is to be made.
    fn tls(self) -> Option<Tls> {
        let connector = self.connector.filter(|_| self.transport.tls)?;
        Some(Tls {
            connector: connector.clone(),
            sni: self.transport.sni.clone(),
        })
    }
}

/// How TLS with a server is made.
#[derive(Debug, Clone)]
struct Tls {
    connector: Connector,
    /// The name that the server's certificate must have; without it, its
    /// address.
    sni: Option<Box<str>>,
}

impl Tls {
    async fn shake(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
        http2: bool,
    ) -> Result<TlsStream, String> {
        let name = tls::server_name(self.sni.as_deref(), addr.ip())?;
        let shaken = self.connector.connect(stream, name, http2).await;
        let stream = shaken.map_err(|err| tls::in_words(&err))?;
        if http2 && Connector::alpn(&stream) != Alpn::Http2 {
            return Err("it does not speak HTTP/2: give it without proto=h2".to_owned());
        }
        Ok(stream)
    }
}

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    request: Request<Empty<Bytes>>,
    deadline: Instant,
) -> Outcome {
    let outcome = timeout_at(deadline, exchange(stream, http2, request)).await;
    let (code, http_status) = outcome.unwrap_or((CheckCode::L7Timeout, None));
    (code, http_status, None)
}

async fn connect(addr: SocketAddr, transport: &Transport) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    // On one host the kernel may lend us the very port that we call, and TCP
    // then connects the socket to itself. Nobody listens there.
    if stream.local_addr()? == addr {
        return Err(Errno::CONNREFUSED.into());
    }
    if let Some(version) = transport.send_proxy {
        // On nobody's behalf (HAProxy's `check-send-proxy`).
        stream.write_all(&Header::Local.write(version)).await?;
    }
    Ok(stream)
}

/// `Connection refused`, without the number.
fn in_words(err: &io::Error) -> Box<str> {
    let text = err.to_string();
    text.split(" (os error").next().unwrap_or(&text).into()
}

/// The request that a check sends, if it sends one; of HTTP/2 with a scheme.
fn request(check: &Check, http2: Option<&str>, host: &str) -> Option<Request<Empty<Bytes>>> {
    let Check::Http { method, path } = check else {
        return None;
    };
    let request = Request::builder()
        .method(method)
        .header(header::USER_AGENT, USER_AGENT);
    let request = if let Some(scheme) = http2 {
        request.uri(format!("{scheme}://{host}{path}"))
    } else {
        request
            .uri(path.as_str())
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
    };
    request.body(Empty::new()).ok()
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    request: Request<Empty<Bytes>>,
) -> (CheckCode, Option<u16>) {
    match send(stream, http2, request).await {
        Ok(response) => judge(response.status().as_u16()),
        Err(err) => (fault(&err), None),
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    let stream = TokioIo::new(stream);
    if http2 {
        let begun = http2::handshake(TokioExecutor::new(), stream).await;
        let (mut sender, connection) = begun?;
        driven(connection, sender.send_request(request)).await
    } else {
        let (mut sender, connection) = http1::handshake(stream).await?;
        driven(connection, sender.send_request(request)).await
    }
}

/// Waits for the response while the connection does its work.
async fn driven<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    response: impl Future<Output = hyper::Result<T>>,
) -> hyper::Result<T> {
    let drive = async {
        // How it ended is told to the request; it must not be told twice.
        drop(connection.await);
        std::future::pending::<hyper::Result<_>>().await
    };
    tokio::select! {
        biased;
        response = response => response,
        never = drive => never,
    }
}

fn judge(status: u16) -> (CheckCode, Option<u16>) {
    let code = match status {
        200..=399 => CheckCode::L7Ok,
        _ => CheckCode::L7Status,
    };
    (code, Some(status))
}

fn fault(err: &hyper::Error) -> CheckCode {
    let broken_off = err.is_incomplete_message()
        || err.is_canceled()
        || err.source().is_some_and(<dyn Error>::is::<io::Error>);
    if broken_off {
        CheckCode::L4Connection
    } else {
        CheckCode::L7Response
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, uri::PathAndQuery};
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    const BARE: Transport = Transport {
        tls: false,
        sni: None,
        http2: false,
        send_proxy: None,
    };

    const OVER_HTTP2: Way<'_> = Way {
        transport: &Transport {
            tls: false,
            sni: None,
            http2: true,
            send_proxy: None,
        },
        connector: None,
    };

    const DIRECT: Way<'_> = Way {
        transport: &BARE,
        connector: None,
    };
    const PATIENT: Duration = Duration::from_secs(5);
    const HASTY: Duration = Duration::from_millis(100);

    fn http() -> Check {
        Check::Http {
            method: Method::GET,
            path: PathAndQuery::from_static("/health?deep=1"),
        }
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    /// Probes a server that sends `answer` to the first request; returns the
    /// report and the request as the server saw it.
    async fn probe_answered(answer: &'static str) -> (CheckReport, String) {
        let (listener, addr) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).await.unwrap();
                request.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            request
        });
        let report = probe(addr, DIRECT, &http(), "s1.test", PATIENT).await;
        (report, server.await.unwrap())
    }

    #[test]
    fn a_request_over_http2_has_its_scheme_and_one_over_http1_none() {
        let uri = |http2| request(&http(), http2, "s1:1").unwrap().uri().to_string();
        assert_eq!(uri(Some("https")), "https://s1:1/health?deep=1");
        assert_eq!(uri(None), "/health?deep=1");
    }

    #[tokio::test]
    async fn a_listener_passes_a_tcp_check() {
        let (_listener, addr) = listen().await;
        let report = probe(addr, DIRECT, &Check::Tcp, "", PATIENT).await;
        assert_eq!(report.code, CheckCode::L4Ok);
        assert_eq!(report.http_status, None);
    }

    const OVER_TLS: Transport = Transport {
        tls: true,
        sni: None,
        http2: false,
        send_proxy: None,
    };

    #[tokio::test]
    async fn a_server_over_tls_passes_no_tcp_check_without_a_handshake() {
        let way = |connector| Way {
            transport: &OVER_TLS,
            connector: Some(connector),
        };
        let trusting = Connector::new(None, false).unwrap();
        let (_silent, addr) = listen().await;
        let report = probe(addr, way(&trusting), &Check::Tcp, "", HASTY).await;
        assert_eq!(report.code, CheckCode::L6Timeout);

        let (listener, addr) = listen().await;
        let plain = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 mail.test ESMTP\r\n").await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
        let report = probe(addr, way(&trusting), &Check::Tcp, "", PATIENT).await;
        assert_eq!(report.code, CheckCode::L6Response);
        assert_eq!(report.info.as_deref(), Some("it does not speak TLS"));
        plain.await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_port_is_a_connection_problem() {
        let (listener, addr) = listen().await;
        drop(listener);
        for check in [Check::Tcp, http()] {
            let report = probe(addr, DIRECT, &check, "", PATIENT).await;
            assert_eq!(report.code, CheckCode::L4Connection);
            assert_eq!(report.info.as_deref(), Some("Connection refused"));
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_a_timeout() {
        // A listener with a full backlog drops what else comes, as a lost host does.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        while let Ok(stream) = tokio::time::timeout(HASTY, connect(addr, &BARE)).await {
            held.push(stream.unwrap());
        }

        let report = probe(addr, DIRECT, &Check::Tcp, "", HASTY).await;
        assert_eq!(report.code, CheckCode::L4Timeout);
        assert!(report.took >= HASTY);
    }

    #[tokio::test]
    async fn a_silent_server_fails_an_http_check_in_time() {
        let (_listener, addr) = listen().await;
        let report = probe(addr, DIRECT, &http(), "", HASTY).await;
        assert_eq!(report.code, CheckCode::L7Timeout);
        assert!(report.took >= HASTY);
    }

    #[tokio::test]
    async fn two_hundreds_and_three_hundreds_are_good() {
        for (answer, status) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot wh", 200),
            ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", 302),
        ] {
            let (report, _) = probe_answered(answer).await;
            assert_eq!(report.code, CheckCode::L7Ok);
            assert_eq!(report.http_status, Some(status));
        }
    }

    #[tokio::test]
    async fn any_other_status_is_bad() {
        for (answer, status) in [
            ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 500),
            ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", 404),
        ] {
            let (report, _) = probe_answered(answer).await;
            assert_eq!(report.code, CheckCode::L7Status);
            assert_eq!(report.http_status, Some(status));
        }
    }

    #[tokio::test]
    async fn what_is_not_http_is_an_invalid_response() {
        let (report, _) = probe_answered("220 mail.test ESMTP\r\n").await;
        assert_eq!(report.code, CheckCode::L7Response);
        assert_eq!(report.http_status, None);
    }

    #[tokio::test]
    async fn a_connection_closed_without_a_word_is_a_connection_problem() {
        let (report, _) = probe_answered("").await;
        assert_eq!(report.code, CheckCode::L4Connection);
    }

    #[tokio::test]
    async fn an_http_check_names_its_host_and_asks_to_close() {
        let (_, request) = probe_answered("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(request.starts_with("GET /health?deep=1 HTTP/1.1\r\n"));
        assert!(request.contains("\r\nhost: s1.test\r\n"));
        assert!(request.contains("\r\nconnection: close\r\n"));
        assert!(request.contains(&format!("\r\nuser-agent: {USER_AGENT}\r\n")));
    }

    /// Probes a server that speaks HTTP/2, and answers with that status.
    async fn probe_over_http2(status: u16) -> (CheckReport, http::request::Parts) {
        let (listener, addr) = listen().await;
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let response = Response::builder().status(status).body(()).unwrap();
            respond.send_response(response, true).unwrap();
            while connection.accept().await.is_some() {}
            request.into_parts().0
        });
        let report = probe(addr, OVER_HTTP2, &http(), "s1.test", PATIENT).await;
        (report, server.await.unwrap())
    }

    #[tokio::test]
    async fn an_http_check_of_a_server_that_speaks_http2_speaks_it_too() {
        for (status, code) in [(204, CheckCode::L7Ok), (503, CheckCode::L7Status)] {
            let (report, request) = probe_over_http2(status).await;
            assert_eq!((report.code, report.http_status), (code, Some(status)));
            assert_eq!(request.version, http::Version::HTTP_2);
            assert_eq!(request.uri, "http://s1.test/health?deep=1");
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_speak_http2_fails_a_check_that_does() {
        let (listener, addr) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
        let report = probe(addr, OVER_HTTP2, &http(), "s1.test", PATIENT).await;
        assert_eq!(report.code, CheckCode::L7Response);
        server.await.unwrap();
    }
}
