//! A new connection to a server, up to where requests can go over it.

use std::{io, net::SocketAddr};

use tokio::io::AsyncWriteExt;

use super::{connection::Client, stream::Stream};
use crate::{net, pool::Server, throttle::Throttle, tls};

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotDialled {
    /// The server was not reached.
    Connect(io::Error),
    /// It was, and no TLS came about; operators have been told why.
    Handshake,
}

/// Connects to `server` at `addr` for `client`, as its transport asks for.
pub(super) async fn dial(
    server: &Server,
    addr: SocketAddr,
    client: &Client,
    connector: &tls::Connector,
) -> Result<Stream, NotDialled> {
    let mut socket = net::connect(addr).await.map_err(NotDialled::Connect)?;
    if let Some(version) = server.transport.send_proxy {
        let header = client.introduction().write(version);
        let written = socket.write_all(&header).await;
        written.map_err(NotDialled::Connect)?;
    }
    if !server.transport.tls {
        return Ok(socket.into());
    }
    let failed = |why: String| {
        static WARNINGS: Throttle = Throttle::new();
        if WARNINGS.allows() {
            tracing::warn!("no TLS with server {} at {addr}: {why}", server.name);
        }
        NotDialled::Handshake
    };
    let name = tls::server_name(server.transport.sni.as_deref(), addr.ip()).map_err(failed)?;
    // Behind a pointer: most connections have no use for its room.
    let http2 = server.transport.http2;
    let shaken = Box::pin(connector.connect(socket, name, http2)).await;
    match shaken {
        Ok(stream) if http2 && tls::Connector::alpn(&stream) != tls::Alpn::Http2 => Err(failed(
            "it does not speak HTTP/2: give it without proto=h2".to_owned(),
        )),
        Ok(stream) => Ok(Stream::layered(stream)),
        Err(err) => Err(failed(tls::in_words(&err))),
    }
}
