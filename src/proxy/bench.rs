//! What `benches/` measures of the request path, and nobody else calls: the
//! functions stay private to the proxy.

use std::net::SocketAddr;

use http::Method;

use super::heads::{self, ForClient};
use crate::http1::{Request, Response};

/// What servers are told of a client.
#[derive(Debug)]
pub struct Origin(heads::Origin);

impl Origin {
    /// Made once for a connection.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self(heads::Origin::new(peer, local))
    }
}

/// A client's head read, and written anew for a server; its length.
pub fn request_head(head: &[u8], origin: &Origin) -> Option<usize> {
    let made = Request::read(head, |request| {
        heads::for_server(request, &origin.0, Some("SERVERID"))
    });
    made.ok().flatten().map(|made| made.head.len())
}

/// A server's head read, and written anew for a new user; its length.
pub fn response_head(head: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let for_client = ForClient {
        version: crate::http1::Version::Http11,
        keep_alive: true,
        sticky: Some(("SERVERID", Some("s1"))),
        method: &Method::GET,
        date: &|| *b"Sun, 06 Nov 1994 08:49:37 GMT",
        why: None,
    };
    out.clear();
    let read = Response::read(head, &Method::GET, |response| {
        for_client.write(response, out)
    });
    read.ok().flatten().map(|_| out.len())
}
