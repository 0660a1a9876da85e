//! Why a request went where it went, in a few words. Pure.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use super::exchange::Affinity;
use crate::{
    balance::Algorithm,
    membership::Name,
    pool::{
        Server, Snapshot, Status,
        server::{Cause, Life},
    },
};

/// Servers that are named; of the others there is a number.
const NAMED: usize = 4;

/// What a choice was made from. The words are made when they are read, which
/// for the log is on the log's own thread.
#[derive(Debug)]
pub(super) struct Why {
    /// The pool at that moment.
    pub(super) snapshot: Arc<Snapshot>,
    /// The moment.
    pub(super) at: Instant,
    /// How servers take turns.
    pub(super) algorithm: Algorithm,
    /// What the request's cookie was.
    pub(super) affinity: Affinity,
    /// What it said.
    pub(super) cookie: Option<String>,
    /// The server that was chosen; `None`: there was none.
    pub(super) chosen: Option<Life>,
    /// Servers that had failed this request.
    pub(super) tried: Vec<Life>,
    /// The number of this attempt, from 1.
    pub(super) attempt: u32,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.snapshot.servers.iter();
        let chosen = servers
            .clone()
            .find(|server| Some(server.life) == self.chosen);
        match chosen {
            Some(server) if self.affinity == Affinity::Valid => {
                // Where the others stand had no part in it.
                write!(f, "sticky {}", server.name)?;
                if let Some(state) = self.state(server) {
                    write!(f, "; {} {state}", server.name)?;
                }
            }
            _ => {
                self.write_rule(f, chosen)?;
                self.write_cookie(f)?;
                self.write_states(f)?;
            }
        }
        match self.attempt {
            0 | 1 => Ok(()),
            attempt => write!(f, "; attempt {attempt}"),
        }
    }
}

impl Why {
    fn write_rule(&self, f: &mut fmt::Formatter<'_>, chosen: Option<&Arc<Server>>) -> fmt::Result {
        f.write_str(match (chosen, self.algorithm) {
            (None, _) => "no server",
            (Some(_), Algorithm::RoundRobin) => "rr",
            (Some(_), algorithm) => algorithm.as_str(),
        })?;
        match chosen.map(|server| server.status) {
            None | Some(Status::Up) => Ok(()),
            Some(_) => f.write_str("; last resort"),
        }
    }

    /// A cookie may be anybody's invention: only what may be a name is shown.
    fn write_cookie(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.cookie.as_ref();
        let name = name.and_then(|cookie| cookie.parse::<Name>().ok());
        match (self.affinity, name) {
            (Affinity::Invalid, Some(name)) => write!(f, "; cookie {name} unknown"),
            (Affinity::Invalid, None) => f.write_str("; cookie unknown"),
            (Affinity::Down, Some(name)) => write!(f, "; cookie {name}"),
            _ => Ok(()),
        }
    }

    /// The servers that are not simply up, or that had failed.
    fn write_states(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.snapshot.servers.iter();
        let mut states =
            servers.filter_map(|server| self.state(server).map(|state| (&server.name, state)));
        let mut separator = "; ";
        for (name, state) in states.by_ref().take(NAMED) {
            write!(f, "{separator}{name} {state}")?;
            separator = ", ";
        }
        match states.count() {
            0 => Ok(()),
            more => write!(f, ", +{more} more"),
        }
    }

    /// What of a server's state speaks against it, and for how many seconds
    /// that has been so.
    fn state(&self, server: &Server) -> Option<impl fmt::Display + use<>> {
        let (word, lasts) = match server.status {
            _ if self.tried.contains(&server.life) => ("failed", false),
            Status::Up if server.weight == 0 => ("weight 0", false),
            Status::Up => return None,
            Status::Suspect => ("suspected", true),
            Status::Drain => ("draining", false),
            Status::Maint => ("maint", false),
            Status::Down(Cause::Quarantine) => ("quarantined", true),
            Status::Down(_) => ("down", true),
        };
        let seconds = self.at.saturating_duration_since(server.since).as_secs();
        Some(fmt::from_fn(move |f| {
            f.write_str(word)?;
            if lasts {
                write!(f, " {seconds}s")
            } else {
                Ok(())
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        membership::{Admin, Intent, MemberEvent, Version, Wish},
        pool::{
            Input,
            state::{Fault, State, StaticServer},
        },
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// A pool of that many servers, and the time.
    struct Pool(State, Instant);

    impl Pool {
        fn new(servers: usize) -> Self {
            let server = |number: usize| StaticServer {
                name: format!("s{number}").parse().unwrap(),
                target: format!("127.0.0.1:{}", 3000 + number),
                weight: 1,
                check: None,
                tags: std::collections::BTreeMap::new(),
            };
            let servers = (1..=servers).map(server).collect();
            let now = Instant::now();
            Self(State::new("nodes".parse().unwrap(), servers, now), now)
        }

        fn life(&mut self, name: &str) -> Life {
            self.0.snapshot().by_name(name).unwrap().life
        }

        fn refuse(&mut self, name: &str) {
            let life = self.life(name);
            self.0.apply(Input::Fault(life, Fault::Refused), self.1);
        }

        fn want(&mut self, name: &str, admin: Admin) {
            let version = Version {
                clock: 1,
                writer: "127.0.0.9:7946".parse().unwrap(),
            };
            let intent = Intent {
                service: "nodes".parse().unwrap(),
                server: name.parse().unwrap(),
                wish: Wish::State(admin),
                version,
            };
            let wanted = MemberEvent::Wanted(intent);
            self.0.apply(Input::Member(wanted), self.1);
        }

        fn why(&mut self, chosen: Option<&str>) -> Why {
            let chosen = chosen.map(|name| self.life(name));
            Why {
                snapshot: Arc::new(self.0.snapshot()),
                at: self.1 + 12 * SECOND,
                algorithm: Algorithm::RoundRobin,
                affinity: Affinity::New,
                cookie: None,
                chosen,
                tried: Vec::new(),
                attempt: 1,
            }
        }
    }

    #[test]
    fn where_all_is_well_there_is_little_to_say() {
        let mut pool = Pool::new(3);
        assert_eq!(pool.why(Some("s1")).to_string(), "rr");
        let leastconn = Why {
            algorithm: Algorithm::LeastConn,
            ..pool.why(Some("s1"))
        };
        assert_eq!(leastconn.to_string(), "leastconn");
    }

    #[test]
    fn what_spoke_against_the_others_is_told() {
        let mut pool = Pool::new(4);
        pool.want("s1", Admin::Drain);
        pool.want("s3", Admin::Maint);
        pool.refuse("s4");
        let why = pool.why(Some("s2")).to_string();
        assert_eq!(why, "rr; s1 draining, s3 maint, s4 down 12s");
    }

    #[test]
    fn a_cookie_that_was_followed_is_the_whole_reason() {
        let mut pool = Pool::new(2);
        pool.refuse("s1");
        pool.want("s2", Admin::Drain);
        let sticky = Why {
            affinity: Affinity::Valid,
            ..pool.why(Some("s2"))
        };
        assert_eq!(sticky.to_string(), "sticky s2; s2 draining");
    }

    #[test]
    fn a_cookie_that_was_not_followed_says_why_not() {
        let mut pool = Pool::new(2);
        pool.refuse("s1");
        let told = |pool: &mut Pool, affinity, cookie: &str| {
            let cookie = Some(cookie.to_owned());
            let why = Why {
                affinity,
                cookie,
                ..pool.why(Some("s2"))
            };
            why.to_string()
        };
        let down = told(&mut pool, Affinity::Down, "s1");
        assert_eq!(down, "rr; cookie s1; s1 down 12s");
        let unknown = told(&mut pool, Affinity::Invalid, "s9");
        assert_eq!(unknown, "rr; cookie s9 unknown; s1 down 12s");
        let invented = told(&mut pool, Affinity::Invalid, "<script>\u{e9}");
        assert_eq!(invented, "rr; cookie unknown; s1 down 12s");
    }

    #[test]
    fn another_attempt_says_so_and_who_failed_before() {
        let mut pool = Pool::new(2);
        let failed = pool.life("s1");
        let second = Why {
            tried: vec![failed],
            attempt: 2,
            ..pool.why(Some("s2"))
        };
        assert_eq!(second.to_string(), "rr; s1 failed; attempt 2");
    }

    #[test]
    fn with_no_server_left_it_says_where_they_are() {
        let mut pool = Pool::new(2);
        pool.refuse("s1");
        pool.want("s2", Admin::Maint);
        let why = pool.why(None).to_string();
        assert_eq!(why, "no server; s1 down 12s, s2 maint");
    }

    #[test]
    fn a_large_pool_does_not_make_a_long_story() {
        let mut pool = Pool::new(1000);
        for number in 1..1000 {
            pool.refuse(&format!("s{number}"));
        }
        let why = pool.why(Some("s1000")).to_string();
        let end = ", +995 more";
        assert!(why.ends_with(end), "{why}");
        assert!(why.len() < 100 + NAMED * Name::MAX_LEN);
    }
}
