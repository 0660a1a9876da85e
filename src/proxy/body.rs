//! Bodies on their way through: counted, timed, never held.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    error::Termination,
    exchange::Exchange,
    upstream::Lease,
    watch::{Waiting, Watch},
};

/// Why a body broke off. hyper closes the connection on either.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The other side's connection failed.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The server sent nothing for too long.
    #[error("the server stalled in its response")]
    Stalled,
}

/// A request's body on its way to a server.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// There is none, so the request can be built again.
    Empty,
    /// The client's.
    Client {
        /// What the client sends.
        body: Incoming,
        /// Knows that we wait for the client.
        watch: Rc<Watch>,
        /// How far it got, for whoever has to explain a failure.
        progress: Rc<Progress>,
    },
}

/// What became of a request's body.
#[derive(Debug, Default)]
pub(super) struct Progress {
    bytes: std::cell::Cell<u64>,
    broken: std::cell::Cell<bool>,
}

impl Progress {
    /// Bytes that went by.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the client broke off.
    pub(super) fn broken(&self) -> bool {
        self.broken.get()
    }

    fn note(&self, frame: Option<&Result<Frame<Bytes>, hyper::Error>>) {
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.bytes.set(self.bytes.get() + bytes as u64);
            }
            Some(Err(_)) => self.broken.set(true),
            None => {}
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Client {
            body,
            watch,
            progress,
        } = self.get_mut()
        else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Pending => watch.wait_for_body(Instant::now),
            Poll::Ready(frame) => progress.note(frame.as_ref()),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client { body, .. } => body.size_hint(),
        }
    }
}

/// A response's body on its way to the client. Its drop ends the exchange.
#[derive(Debug)]
pub(super) struct ResponseBody(Source);

#[derive(Debug)]
enum Source {
    /// There is none: the connection switches protocols.
    None,
    /// Our own words.
    Own {
        text: Option<Bytes>,
        exchange: Box<Exchange>,
    },
    /// The server's.
    Server(Box<ServerBody>),
}

#[derive(Debug)]
struct ServerBody {
    body: Incoming,
    /// The connection it comes from, given back at its end.
    lease: Option<Lease>,
    progress: Option<Rc<Progress>>,
    watch: Rc<Watch>,
    exchange: Box<Exchange>,
    ended: bool,
}

impl ResponseBody {
    /// No body at all.
    pub(super) fn none() -> Self {
        Self(Source::None)
    }

    /// A body of our own.
    pub(super) fn own(text: Bytes, exchange: Box<Exchange>) -> Self {
        let text = Some(text).filter(|text| !text.is_empty());
        Self(Source::Own { text, exchange })
    }

    /// A server's body that comes over the leased connection.
    pub(super) fn server(
        body: Incoming,
        lease: Lease,
        progress: Option<Rc<Progress>>,
        watch: Rc<Watch>,
        exchange: Box<Exchange>,
    ) -> Self {
        let mut server = ServerBody {
            body,
            lease: Some(lease),
            progress,
            watch,
            exchange,
            ended: false,
        };
        // hyper does not poll a body that says it has ended.
        if server.body.is_end_stream() {
            server.end();
        }
        Self(Source::Server(Box::new(server)))
    }
}

impl ServerBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending if self.watch.server_expired() => {
                self.exchange.finish(Termination::SERVER_STALLED_IN_DATA);
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
            Poll::Pending => {
                self.watch.wait_for_server(Instant::now);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.watch.arrived(Waiting::Server);
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.exchange.add_bytes_out(bytes as u64);
                if self.body.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(err))) => {
                self.exchange.finish(Termination::SERVER_GONE_IN_DATA);
                Poll::Ready(Some(Err(err.into())))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    /// The whole response is there: the exchange went well, and the
    /// connection is free for the next request.
    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.exchange.finish(Termination::NORMAL);
            if let Some(lease) = self.lease.take() {
                lease.give_back();
            }
        }
    }
}

impl Drop for ServerBody {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            self.exchange.add_bytes_in(progress.bytes());
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Source::None => Poll::Ready(None),
            Source::Own { text, exchange } => {
                let text = text.take();
                if let Some(text) = &text {
                    exchange.add_bytes_out(text.len() as u64);
                }
                Poll::Ready(text.map(|text| Ok(Frame::data(text))))
            }
            Source::Server(server) => server.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::None => true,
            Source::Own { text, .. } => text.is_none(),
            Source::Server(server) => server.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::None => SizeHint::with_exact(0),
            Source::Own { text, .. } => {
                SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64)
            }
            Source::Server(server) => server.body.size_hint(),
        }
    }
}
