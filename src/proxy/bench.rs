//! What `benches/` measures of the request path, and nobody else calls: the
//! functions stay private to the proxy.

use std::net::SocketAddr;

use http::{request, response};

use super::headers;

/// A client's head made one for a server.
pub fn prepare_request(head: &mut request::Parts, peer: SocketAddr, local: SocketAddr) -> bool {
    headers::prepare_request(head, peer, local)
}

/// A server's head made one for a client.
pub fn prepare_response(head: &mut response::Parts) {
    headers::prepare_response(head);
}
