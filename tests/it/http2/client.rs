//! A client of HTTP/2, and what it is answered.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::{net::TcpStream, task::JoinHandle};

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Client {
    /// Connects with prior knowledge.
    pub(super) async fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.expect("it accepts");
        socket.set_nodelay(true).expect("a socket");
        let mut builder = Builder::new();
        builder.initial_window_size(1 << 20);
        builder.initial_connection_window_size(1 << 22);
        let (sender, connection): (_, Connection<_, _>) =
            builder.handshake(socket).await.expect("HTTP/2");
        let driver = tokio::spawn(connection);
        Self { sender, driver }
    }

    /// Begins a request; its body follows unless it `ends` at once.
    pub(super) async fn begin(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        sender.send_request(request, ends)
    }

    /// Sends a request and reads its answer to the end.
    pub(super) async fn ask(
        &self,
        request: Request<()>,
        body: impl Into<Bytes>,
    ) -> Result<Answer, h2::Error> {
        let body = body.into();
        let (response, mut upload) = self.begin(request, body.is_empty()).await?;
        if !body.is_empty() {
            upload.send_data(body, true)?;
        }
        read(response).await
    }

    /// GETs a path.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, h2::Error> {
        self.ask(get(path), "").await
    }

    /// Waits until the server lets requests switch protocols (RFC 8441 §3).
    pub(super) async fn may_switch(&self) {
        while !self.sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the server has closed the connection.
    pub(super) async fn closed(self) -> Result<(), h2::Error> {
        self.driver.await.expect("no panic")
    }
}

/// A request without a body.
pub(super) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}"))
        .body(())
        .expect("a request")
}

/// A request with one.
pub(super) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://test{path}"))
        .body(())
        .expect("a request")
}

/// Reads an answer to its end.
pub(super) async fn read(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (parts, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = next(&mut stream).await? {
        body.extend_from_slice(&data);
    }
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
        trailers: stream.trailers().await?,
    })
}

/// The next piece of a body.
pub(super) async fn next(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        // The last frame may have nothing in it.
        if !data.is_empty() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
