//! TLS on both sides, by rustls: what a client's handshake needs ([`Server`]),
//! how servers are connected to ([`Connector`]), and the certificates, which
//! are followed in their files while all of it runs.
//!
//! Certificates come from files. There is no ACME: certbot, cert-manager or
//! whoever else renews them writes the files, and the new ones are taken up.

mod certificate;
mod client;
mod files;
#[cfg(test)]
mod fixture;
mod index;
mod server;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};

pub use self::{
    certificate::Certificate,
    client::{Connector, in_words, server_name},
    index::Index,
    server::{Alpn, ClientAuth, Handshake, Handshakes, MinVersion, Server, Settings},
};

/// ring's cipher suites, groups and signatures, in rustls' order.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}
