//! What `benches/` measures of the request path, and nobody else calls: the
//! functions stay private to the proxy.

use std::net::SocketAddr;

use http::{request, response};

use super::headers;

/// What servers are told of a client.
#[derive(Debug)]
pub struct Origin(headers::Origin);

impl Origin {
    /// Made once for a connection.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self(headers::Origin::new(peer, local))
    }
}

/// A client's head made one for a server.
pub fn prepare_request(head: &mut request::Parts, origin: &Origin) -> bool {
    headers::prepare_request(head, &origin.0)
}

/// A server's head made one for a client.
pub fn prepare_response(head: &mut response::Parts) {
    headers::prepare_response(head);
}
