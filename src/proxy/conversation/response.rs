//! A response's head, written anew for the client.

use std::cell::Cell;

use http::StatusCode;

use super::Upload;
use crate::{
    http1::{Length, Malformed, Response, Version},
    pool::Server,
    proxy::{
        Worker,
        body::Framing,
        compress::{self, Coded, Coding},
        connection::{Asked, Client},
        exchange::{Affinity, CookieSent, Exchange},
        heads::{self, ForClient, Said},
    },
};

/// The largest response head. nginx and `HAProxy` stop at 16 KiB and less, and
/// applications with long policies and many cookies have run into that.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// What a response's head is written anew from.
pub(super) struct ForThisRequest<'a> {
    pub(super) worker: &'a Worker,
    pub(super) client: &'a Client,
    pub(super) asked: &'a Asked,
    pub(super) server: &'a Server,
    pub(super) exchange: &'a mut Exchange,
    pub(super) upload: &'a Cell<Upload>,
    /// The client was told to send its body.
    pub(super) invited: bool,
}

/// A server's response, whose head has been written anew for the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) length: Length,
    pub(super) framing: Framing,
    /// How it is compressed, if it is.
    pub(super) coding: Option<Coding>,
    /// Bytes of its head, as it came.
    pub(super) received: usize,
    /// Whether the server takes another request.
    pub(super) server_keeps: bool,
    /// Whether the client may ask again.
    pub(super) client_keeps: bool,
    pub(super) said: Said,
}

/// What is found where a response's head is to be.
pub(super) enum Found {
    Answer(Answered),
    /// A response that is not the last one to its request.
    Interim {
        status: StatusCode,
        received: usize,
    },
}

impl ForThisRequest<'_> {
    /// Finds a head in what has come of the response, and appends to `out`
    /// what it is to the client.
    pub(super) fn find(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Malformed> {
        if input.is_empty() {
            return Ok(None);
        }
        let found = Response::read(input, &self.asked.method, |response| {
            if response.size > MAX_HEAD {
                return Err(Malformed::Rule("too large a head"));
            }
            if response.is_interim() {
                heads::write_interim(response, out);
                return Ok(Found::Interim {
                    status: response.status,
                    received: response.size,
                });
            }
            if response.status == StatusCode::SWITCHING_PROTOCOLS && !self.asked.upgrade {
                return Err(Malformed::Rule("a switch that nobody asked for"));
            }
            Ok(Found::Answer(self.write(response, out)))
        })?;
        found.transpose()
    }

    /// What becomes of the response's content.
    fn coded(&self, response: &Response<'_, '_>) -> Coded {
        let offered = !self.worker.settings.compression.is_empty();
        let asked = self.asked;
        if !offered || asked.version == Version::Http10 {
            return Coded::AsItIs;
        }
        match asked.coding {
            _ if !compress::is_worth_it(response, &asked.method) => Coded::AsItIs,
            None => Coded::ForOthers,
            Some(coding) => Coded::By(coding),
        }
    }

    fn write(&mut self, response: &Response<'_, '_>, out: &mut Vec<u8>) -> Answered {
        let asked = self.asked;
        let server_keeps = response.keeps_alive();
        let stays_open = self.upload.get() == Upload::Done || server_keeps;
        let mut for_client = ForClient {
            version: asked.version,
            keep_alive: stays_open && self.client.may_ask_again(self.worker, asked),
            sticky: None,
            method: &asked.method,
            date: &|| self.worker.date.now(),
            why: None,
            coded: self.coded(response),
            hsts: self.client.hsts(self.worker),
        };
        let recoded = for_client.recodes(response.length);
        for_client.keep_alive &=
            recoded || matches!(response.length, Length::None | Length::Exact(_));
        let why = self.worker.why(self.exchange);
        for_client.why = why.as_deref();
        let binds = self.exchange.affinity() != Affinity::Valid;
        if let Some(cookie) = self.worker.settings.cookie.as_deref() {
            for_client.sticky = Some((cookie, binds.then_some(self.server.name.as_str())));
        }
        let said = for_client.write(response, out);
        if for_client.sticky.is_some() && binds {
            self.exchange.set_cookie_sent(CookieSent::Inserted);
        } else if said.cookie_taken {
            self.exchange.set_cookie_sent(CookieSent::Deleted);
        }
        let trailers = asked.takes_trailers;
        Answered {
            status: response.status,
            length: response.length,
            framing: if recoded {
                Framing::Chunks { trailers }
            } else {
                Framing::Plain
            },
            coding: match for_client.coded {
                Coded::By(coding) => Some(coding),
                Coded::AsItIs | Coded::ForOthers => None,
            },
            received: response.size,
            server_keeps,
            client_keeps: for_client.keep_alive,
            said,
        }
    }
}
