//! What comes next on a connection: a request, which is made ready for servers,
//! or something else.

use std::{
    future::poll_fn,
    net::IpAddr,
    task::{Poll, ready},
};

use http::Method;

use super::{Client, Wire};
use crate::{
    cidr::any_contains,
    http1::{Known, Length, Request, Version},
    proxy::{
        Worker,
        access_log::RequestLine,
        buffer::Buffer,
        compress::{self, Coding},
        error::Error,
        forwarded,
        heads::{self, ForServer},
        http2, redirect,
    },
};

/// What comes next on a connection.
pub(super) enum Next {
    /// A request.
    Asked(Asked),
    /// Something that is no request, or none for us.
    Refused(Refused),
    /// Nothing: the client has closed.
    Nothing,
    /// The client has closed in the middle of a head.
    BrokenOff,
    /// Nothing was asked, and nothing more is to be.
    Draining,
    /// The preface of HTTP/2.
    Http2,
}

impl Next {
    fn refused(error: Error) -> Self {
        Self::Refused(Refused {
            error,
            line: None,
            size: 0,
        })
    }
}

/// Why a request is not served.
pub(super) struct Refused {
    pub(super) error: Error,
    /// Its first line, for the log, if it could be read.
    pub(super) line: Option<RequestLine>,
    /// Bytes of its head that are not in the buffer any more.
    pub(super) size: usize,
}

/// A request that is to be answered.
#[derive(Debug)]
pub(in crate::proxy) struct Asked {
    /// Its method.
    pub(in crate::proxy) method: Method,
    /// Its version.
    pub(in crate::proxy) version: Version,
    /// Where it is to be asked again, over TLS.
    pub(in crate::proxy) redirect: Option<Box<str>>,
    /// Its head for servers.
    pub(in crate::proxy) head: Vec<u8>,
    /// The value of its sticky cookie.
    pub(in crate::proxy) cookie: Option<String>,
    /// How long its body is.
    pub(in crate::proxy) length: Length,
    /// Whether it waits for 100.
    pub(in crate::proxy) expects_continue: bool,
    /// Whether it takes trailers.
    pub(in crate::proxy) takes_trailers: bool,
    /// Whose it is to limits that hold for each source.
    pub(in crate::proxy) source: IpAddr,
    /// How its response may be compressed.
    pub(in crate::proxy) coding: Option<Coding>,
    /// Whether it asks to switch protocols.
    pub(in crate::proxy) upgrade: bool,
    /// Its first line, for the log.
    pub(in crate::proxy) line: Option<RequestLine>,
    /// Bytes of its head, as it came.
    pub(in crate::proxy) size: usize,
    /// Whether its client wants to ask again.
    pub(in crate::proxy) keeps_alive: bool,
}

pub(super) async fn next(worker: &Worker, client: &Client, wire: &mut Wire) -> Next {
    let mut looked_at = 0;
    loop {
        skip_empty_lines(&mut wire.input);
        let there = wire.input.filled();
        if !there.is_empty() {
            client.watch.read();
        }
        // A head that dribbles in is not read from its beginning every time.
        if there.len() > looked_at && (looked_at == 0 || may_end_behind(there, looked_at)) {
            let read = Request::read(there, |request| worker.prepare(client, request));
            match read {
                Ok(Some(Ok(asked))) => {
                    wire.input.consume(asked.size);
                    client.asked.set(true);
                    return Next::Asked(asked);
                }
                Ok(Some(Err(refused))) => {
                    wire.input.consume(refused.size);
                    return Next::Refused(refused);
                }
                Ok(None) => {}
                Err(_) if begins_http2(there, client) => {
                    if there.len() >= http2::PREFACE.len() {
                        return Next::Http2;
                    }
                }
                Err(malformed) => return Next::refused(malformed.into()),
            }
        }
        looked_at = there.len();
        if wire.input.is_full() {
            return Next::refused(too_large(wire.input.filled()));
        }
        let Wire { stream, input } = &mut *wire;
        let (mut from, _) = stream.split();
        let read = poll_fn(|cx| {
            if client.last.get() && input.is_empty() {
                return Poll::Ready(None);
            }
            Poll::Ready(Some(ready!(input.poll_fill(&mut from, cx))))
        });
        match read.await {
            None => return Next::Draining,
            Some(Ok(1..)) => {}
            Some(_) if wire.input.is_empty() => return Next::Nothing,
            Some(_) => return Next::BrokenOff,
        }
    }
}

/// RFC 9112 §2.2: empty lines before a request are nothing, such as the one
/// that some clients send behind a body.
fn skip_empty_lines(input: &mut Buffer) {
    while input.filled().starts_with(b"\r\n") {
        input.consume(2);
    }
}

/// Whether it is what HTTP/2 begins with, as far as it is there: with prior
/// knowledge, or because TLS has agreed on it (RFC 9113 §3.2 and §3.3).
fn begins_http2(there: &[u8], client: &Client) -> bool {
    let common = there.len().min(http2::PREFACE.len());
    client.has_asked_nothing() && there.get(..common) == http2::PREFACE.get(..common)
}

/// Whether a head may be complete with what stands behind `seen` bytes of it.
fn may_end_behind(head: &[u8], seen: usize) -> bool {
    let new = head.get(seen.saturating_sub(3)..).unwrap_or_default();
    memchr::memmem::find(new, b"\n\r\n").is_some() || memchr::memmem::find(new, b"\n\n").is_some()
}

/// RFC 9112 §3: of a head that is too large the target may be the part that is.
fn too_large(head: &[u8]) -> Error {
    if memchr::memchr(b'\n', head).is_none() {
        Error::TargetTooLong
    } else {
        Error::HeadTooLarge
    }
}

impl Worker {
    /// Makes a request ready for servers, unless it is to be refused.
    fn prepare(&self, client: &Client, request: &Request<'_, '_>) -> Result<Asked, Refused> {
        let line = self
            .access_log
            .is_some()
            .then(|| RequestLine::new(request, client.http2));
        if let Some(error) = objection(request) {
            return Err(Refused {
                error,
                line,
                size: request.size,
            });
        }
        let sticky = self.settings.cookie.as_deref();
        let https = self.settings.redirect_https;
        let redirect = https.filter(|_| !client.origin.was_asked_securely(request));
        let redirect = redirect.map(|port| redirect::location(request, &client.origin, port));
        let ForServer { head, cookie } = heads::for_server(request, &client.origin, sticky);
        Ok(Asked {
            method: request.method.clone(),
            version: request.version,
            redirect,
            head,
            cookie,
            length: request.length,
            expects_continue: request.expects_continue && request.version == Version::Http11,
            // A reader of HTTP/2 takes them, whether it says so or not.
            takes_trailers: request.takes_trailers || client.http2,
            source: self.source(client, request),
            coding: self.coding(request),
            upgrade: request.upgrade.is_some(),
            line,
            size: request.size,
            keeps_alive: request.keeps_alive(),
        })
    }

    /// Whose a request is: the client's, or where that is a proxy that is
    /// trusted, whose it says it is. Looked for only where it matters.
    fn source(&self, client: &Client, request: &Request<'_, '_>) -> IpAddr {
        let (peer, trusted) = (client.peer.ip(), &self.settings.forwarded.trusted);
        if self.rate_limit.is_none() || !any_contains(trusted, peer) {
            return peer;
        }
        let said: Vec<&[u8]> = request.fields.values(Known::XForwardedFor).collect();
        forwarded::source(peer, said.into_iter(), trusted)
    }

    /// How a response may be compressed, if it may.
    fn coding(&self, request: &Request<'_, '_>) -> Option<Coding> {
        let offered = self.settings.compression.as_slice();
        if offered.is_empty() {
            return None;
        }
        let accepts = request
            .fields
            .iter()
            .filter(|(_, field)| field.name.eq_ignore_ascii_case("accept-encoding"));
        let values: Vec<&str> = accepts
            .filter_map(|(_, field)| std::str::from_utf8(field.value).ok())
            .collect();
        compress::choose(offered, &values.join(","))
    }
}

/// What speaks against a request that is well-formed.
fn objection(request: &Request<'_, '_>) -> Option<Error> {
    let bodiless = matches!(request.method, Method::GET | Method::HEAD | Method::DELETE);
    if request.method == Method::CONNECT {
        Some(Error::MethodNotAllowed)
    } else if request.version == Version::Http10 && bodiless && request.has_body() {
        Some(Error::PayloadTooLarge)
    } else {
        None
    }
}
