//! Events as they happen, as Server-Sent Events. A follower reads from the
//! timeline, which keeps the latest events anyway.

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, header};
use tokio_util::sync::CancellationToken;

use super::{
    events::{self, Query},
    stream::{CONTENT_TYPE, Course, Follower, Stream},
};
use crate::{
    desk::{http::Visit, seats::Seats},
    pool::{Timeline, timeline::Entry},
};

/// Followers at a time, half of them from one address: some dashboards and
/// scripts, and the statistics keep most of their connections for others.
pub(super) const MOST_FOLLOWERS: usize = 32;

/// Events that are sent in one piece, some 20 KB: a connection holds a few
/// pieces that its client has not taken yet.
const MOST_AT_ONCE: usize = 64;

/// Whether a request wants to be told of events as they happen.
pub(super) fn is_asked_for(query: Query, headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter();
    let mut types = accepts
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|kind| kind.split(';').next());
    query.follow || types.any(|kind| kind.trim().eq_ignore_ascii_case(CONTENT_TYPE))
}

/// The number of the last event that a follower has: what it says as it comes
/// back counts more than the address it came with at first.
pub(super) fn last_seen(query: Query, headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    match headers.get("last-event-id") {
        Some(id) => events::event_number(id.to_str().unwrap_or_default()).map(Some),
        None => Ok(query.after),
    }
}

/// The seats that followers share, and the end of them all.
#[derive(Debug, Clone)]
pub(super) struct Followers {
    seats: Arc<Seats>,
    ending: CancellationToken,
}

impl Followers {
    /// As many seats as there are, until `ending`.
    pub(super) fn new(ending: CancellationToken) -> Self {
        let seats = Seats::new(MOST_FOLLOWERS);
        Self { seats, ending }
    }

    /// Begins to follow after the event `last_seen`, or from now on; `None`
    /// if every seat is taken.
    pub(super) fn begin(
        &self,
        timeline: &Arc<Timeline>,
        last_seen: Option<u64>,
        visit: &Visit,
    ) -> Option<Stream<Seen>> {
        let seat = self.seats.take(&visit.place)?;
        let news = timeline.follow();
        let newest = *news.borrow();
        // A number that is yet to come is that of an earlier process, before
        // numbers began anew: everything here is news to this follower.
        let after = match last_seen {
            Some(seen) if seen > newest => 0,
            Some(seen) => seen,
            None => newest,
        };
        let timeline = Arc::clone(timeline);
        let follower = Follower {
            course: Seen { timeline, after },
            news,
            lease: visit.lease.clone(),
            ending: self.ending.clone(),
            _seat: seat,
        };
        Some(follower.into())
    }
}

/// The timeline, as one follower has seen it so far.
pub(super) struct Seen {
    timeline: Arc<Timeline>,
    /// The number of the last event that was sent.
    after: u64,
}

impl Course for Seen {
    fn piece(&mut self) -> Option<Bytes> {
        let mut entries = self.timeline.since(self.after);
        entries.truncate(MOST_AT_ONCE);
        self.after = entries.last()?.number;
        Some(entries.iter().map(message).collect::<String>().into())
    }
}

/// An event as a message of the stream.
fn message(entry: &Entry) -> String {
    let mut message = String::new();
    write!(
        message,
        "id: {}\nevent: {}\ndata: {}\n\n",
        entry.number,
        entry.event.what.as_str(),
        events::one(entry),
    )
    .expect("a string takes any text");
    message
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpSocket, TcpStream},
        sync::oneshot,
        time::{Instant, sleep, timeout},
    };

    use super::*;
    use crate::{
        membership::Phase,
        pool::state::Sign,
        stats::{
            Source, fixture, run,
            stream::{KEEP_ALIVE, STILL_HERE},
        },
    };

    /// A client that follows, and what it has read so far.
    struct Client {
        stream: TcpStream,
        read: String,
    }

    impl Client {
        /// Begins to follow: the head of the answer is read.
        async fn follow(addr: SocketAddr, uri: &str, headers: &str) -> Self {
            let stream = TcpStream::connect(addr).await.unwrap();
            let read = String::new();
            let mut client = Self { stream, read };
            client.ask(uri, headers).await;
            client.until("\r\n\r\n").await;
            client
        }

        async fn ask(&mut self, uri: &str, headers: &str) {
            let request = format!("GET {uri} HTTP/1.1\r\nHost: ha\r\n{headers}\r\n");
            self.stream.write_all(request.as_bytes()).await.unwrap();
        }

        /// Reads on until that has come, and says what came before it.
        async fn until(&mut self, end: &str) -> String {
            loop {
                if let Some((before, rest)) = self.read.split_once(end) {
                    let (before, rest) = (before.to_owned(), rest.to_owned());
                    self.read = rest;
                    return before;
                }
                let mut buffer = [0; 4096];
                let n = self.stream.read(&mut buffer).await.unwrap();
                assert_ne!(n, 0, "the end, after {}", self.read);
                self.read
                    .push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            }
        }

        /// The next message; the size of its chunk stands before it.
        async fn message(&mut self) -> String {
            let message = self.until("\n\n").await;
            let begin = message.find("id: ").unwrap();
            message.split_at(begin).1.to_owned()
        }
    }

    async fn serving(source: &Arc<Source>) -> (SocketAddr, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(run(listener, Arc::clone(source), async {
            stopped.await.ok();
        }));
        (addr, stop)
    }

    const ACCEPT: &str = "Accept: text/event-stream\r\n";

    #[tokio::test]
    async fn what_happens_to_a_server_is_told_as_it_happens() {
        let (source, inputs) = fixture::live();
        let (addr, _stop) = serving(&source).await;
        let mut client = Client::follow(addr, "/v1/events", ACCEPT).await;
        for (phase, number, word) in [(Phase::Ready, 1, "joined"), (Phase::Down, 2, "down")] {
            inputs.send(fixture::announced("s1", phase)).await.unwrap();
            let message = client.message().await;
            let begin = format!("id: {number}\nevent: {word}\ndata: {{\"number\":{number},");
            assert!(message.starts_with(&begin), "{message}");
            assert!(message.contains("\"server\":\"s1\""));
            assert_eq!(message.lines().count(), 3);
        }
    }

    #[tokio::test]
    async fn a_follower_that_comes_back_gets_what_it_missed_and_no_more() {
        let (source, _inputs) = fixture::live();
        happen(&source, 3);
        let (addr, _stop) = serving(&source).await;
        let first_of = async |uri: &str, headers: &str| {
            let message = Client::follow(addr, uri, headers).await.message().await;
            message.lines().next().unwrap().to_owned()
        };
        assert_eq!(first_of("/v1/events?follow&after=1", "").await, "id: 2");
        let seen_two = "Last-Event-ID: 2\r\n";
        assert_eq!(
            first_of("/v1/events?follow&after=0", seen_two).await,
            "id: 3"
        );
        // The number comes from a process before this one.
        let long_ago = "Last-Event-ID: 900\r\n";
        assert_eq!(first_of("/v1/events?follow", long_ago).await, "id: 1");
        let mut news_only = Client::follow(addr, "/v1/events?follow", "").await;
        happen(&source, 1);
        assert!(news_only.message().await.starts_with("id: 4\n"));
        let mut wrong = Client::follow(addr, "/v1/events?follow", "Last-Event-ID: x\r\n").await;
        assert!(wrong.until("\n").await.starts_with("an event's number"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_stays_for_as_long_as_it_reads_and_hears_that_it_is_not_forgotten() {
        let (source, _inputs) = fixture::live();
        let (addr, _stop) = serving(&source).await;
        let mut client = Client::follow(addr, "/v1/events", ACCEPT).await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_hours(1) {
            let before = Instant::now();
            client.until(STILL_HERE).await;
            assert!(before.elapsed() <= KEEP_ALIVE + Duration::from_secs(1));
        }
        happen(&source, 1);
        assert!(client.message().await.starts_with("id: 1\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_does_not_read_is_cut_off() {
        let (source, _inputs) = fixture::live();
        let (addr, _stop) = serving(&source).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(addr).await.unwrap();
        let read = String::new();
        let mut client = Client { stream, read };
        client.ask("/v1/events?follow", "").await;
        for _ in 0..180 {
            happen(&source, 1000);
            sleep(Duration::from_secs(1)).await;
        }
        // What the kernel still holds comes, and then the end; how fast, the
        // kernel's clock decides.
        tokio::time::resume();
        let mut rest = Vec::new();
        let end = client.stream.read_to_end(&mut rest);
        let _ended_or_reset = timeout(Duration::from_mins(1), end).await.unwrap();
        assert!(!String::from_utf8_lossy(&rest).contains("\nid: 180000\n"));
    }

    #[tokio::test]
    async fn one_follower_too_many_of_an_address_is_told_so_and_a_seat_that_is_left_is_free() {
        let (source, _inputs) = fixture::live();
        let (addr, _stop) = serving(&source).await;
        let mut followers = Vec::new();
        for _ in 0..MOST_FOLLOWERS / 2 {
            followers.push(Client::follow(addr, "/v1/events", ACCEPT).await);
        }
        let status = async || {
            let mut client = Client {
                stream: TcpStream::connect(addr).await.unwrap(),
                read: String::new(),
            };
            client.ask("/v1/events", ACCEPT).await;
            client.until("\r\n").await
        };
        assert_eq!(status().await, "HTTP/1.1 503 Service Unavailable");
        followers.pop();
        while status().await != "HTTP/1.1 200 OK" {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn followers_end_with_the_server() {
        let (source, _inputs) = fixture::live();
        let (addr, stop) = serving(&source).await;
        let mut client = Client::follow(addr, "/v1/events", ACCEPT).await;
        stop.send(()).unwrap();
        let mut rest = String::new();
        client.stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "0\r\n\r\n");
    }

    #[test]
    fn a_stream_is_asked_for_by_its_media_type_or_by_name() {
        let asked = |accept: &str, query: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            is_asked_for(Query::of(query).unwrap(), &headers)
        };
        assert!(asked("text/event-stream", ""));
        assert!(asked("text/html, Text/Event-Stream;q=0.9", ""));
        assert!(asked("*/*", "follow"));
        assert!(!asked("*/*", ""));
        assert!(!asked("application/json", "after=3"));
    }

    fn happen(source: &Source, times: usize) {
        for _ in 0..times {
            let took = Duration::from_millis(3);
            let found = fixture::found_down("s1", Sign::Gossip, took);
            source.pool.timeline().add(found);
        }
    }
}
