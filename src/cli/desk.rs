//! Asks the statistics port of a running load balancer.

use std::time::Duration;

use anyhow::{anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::serve::Credentials;
use crate::admin::client::host_and_port;

/// How long a load balancer may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer that is read: twice what the most servers take.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// The longest line of a stream that is read; an event takes less than 1 KiB.
const LONGEST_LINE: usize = 64 * 1024;

/// Which load balancer to look at.
#[derive(Debug, Clone, Args)]
pub struct Desk {
    /// Statistics port of the load balancer
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:1936",
        env = "TIDINGS_STATS_ADDR"
    )]
    #[arg(value_parser = address)]
    pub stats: String,
    /// User and password, where it asks for them
    #[arg(
        long,
        value_name = "USER:PASS",
        env = "TIDINGS_STATS_AUTH",
        hide_env_values = true
    )]
    pub stats_auth: Option<Credentials>,
}

impl Desk {
    /// What it answers under a path; an error is one line that says what to do.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        let answer = timeout(
            PATIENCE,
            exchange(&self.stats, self.stats_auth.as_ref(), path),
        );
        let answer = self.in_words(answer.await)?;
        self.check(answer.0)?;
        Ok(answer.1)
    }

    /// Begins to follow its events after number `after`.
    pub async fn follow(&self, after: u64) -> anyhow::Result<Followed> {
        let path = format!("/v1/events?follow&after={after}");
        let response = timeout(PATIENCE, send(&self.stats, self.stats_auth.as_ref(), &path));
        let response = self.in_words(response.await)?;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            bail!("{} has all the followers that it takes", self.stats);
        }
        self.check(response.status())?;
        Ok(Followed {
            body: response.into_body(),
            read: Vec::new(),
        })
    }

    fn in_words<T>(
        &self,
        answer: Result<anyhow::Result<T>, tokio::time::error::Elapsed>,
    ) -> anyhow::Result<T> {
        let answer = answer.map_err(|_| anyhow!("no answer within {PATIENCE:?}"));
        answer.flatten().map_err(|err| {
            let at = &self.stats;
            anyhow!("no load balancer answers at {at} ({err}); give its address with --stats")
        })
    }

    fn check(&self, status: StatusCode) -> anyhow::Result<()> {
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::UNAUTHORIZED => bail!(
                "the load balancer at {} asks for another user and password: give them with \
                 --stats-auth",
                self.stats
            ),
            _ => bail!(
                "{} answers with {status}: is it a load balancer?",
                self.stats
            ),
        }
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct Followed {
    body: Incoming,
    read: Vec<u8>,
}

impl Followed {
    /// The next event, as JSON; `None` where the load balancer has ended the
    /// stream.
    pub async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                match String::from_utf8_lossy(&line).strip_prefix("data: ") {
                    Some(event) => return Ok(Some(event.trim_end().to_owned())),
                    None => continue,
                }
            }
            if self.read.len() > LONGEST_LINE {
                bail!("what answers is no load balancer: its lines have no end");
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }
}

/// Asks for a path, and returns the answer.
pub(super) async fn exchange(
    at: &str,
    auth: Option<&Credentials>,
    path: &str,
) -> anyhow::Result<(StatusCode, String)> {
    let response = send(at, auth, path).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect();
    let body = body.await.map_err(|err| anyhow!(err))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Asks for a path; the body is yet to come.
async fn send(
    at: &str,
    auth: Option<&Credentials>,
    path: &str,
) -> anyhow::Result<Response<Incoming>> {
    let stream = TokioIo::new(TcpStream::connect(at).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    // It ends with the body; how is told where that is read.
    tokio::spawn(connection);
    let mut request = Request::get(path)
        .header(header::HOST, at)
        .header(header::CONNECTION, "close");
    if let Some(Credentials { user, password }) = auth {
        let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
        request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?)
}

pub(super) fn address(text: &str) -> Result<String, &'static str> {
    host_and_port(text).ok_or("expected an address such as 127.0.0.1:1936 or ha:1936")
}

/// The text without what could steer a terminal, or make it show something
/// else than what is there: controls and marks of direction or of no width.
pub fn printable(text: &str) -> String {
    let steers = |c: &char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    text.chars().filter(|c| !steers(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\u{9b}1m"), "a[2Jb1m");
        assert_eq!(printable("s1\u{202e}gnp\u{200b}"), "s1gnp");
        assert_eq!(printable("größe 三 ✓"), "größe 三 ✓");
    }
}
