//! What `benches/` measures and `tests/fuzz` tries of the request path, and
//! nobody else calls: the functions stay private to the proxy.

use std::net::SocketAddr;

use http::Method;

use super::{
    forwarded::{self, Policy},
    heads::{self, ForClient},
};
use crate::http1::{Request, Response};

/// What servers are told of a client.
#[derive(Debug)]
pub struct Origin(forwarded::Origin);

impl Origin {
    /// Made once for a connection.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self(forwarded::Origin::new(
            &Policy::default(),
            "http",
            peer,
            local,
        ))
    }
}

/// A client's head read, and written anew for a server; its length.
pub fn request_head(head: &[u8], origin: &Origin) -> Option<usize> {
    head_for_server(head, origin).map(|head| head.len())
}

/// A client's head read, and written anew for a server.
pub fn head_for_server(head: &[u8], origin: &Origin) -> Option<Vec<u8>> {
    let made = Request::read(head, |request| {
        heads::for_server(request, &origin.0, Some("SERVERID"))
    });
    made.ok().flatten().map(|made| made.head)
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
        coded: super::compress::Coded::AsItIs,
        hsts: None,
    };
    out.clear();
    let read = Response::read(head, &Method::GET, |response| {
        for_client.write(response, out)
    });
    read.ok().flatten().map(|_| out.len())
}
