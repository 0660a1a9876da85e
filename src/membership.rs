//! What nodes of a cluster say of themselves, and what is known about them.
//!
//! Plain types shared by gossip (which carries them), the pool (which turns
//! them into servers) and the agent (which announces one). No I/O here.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The name of a node, a server or a service.
///
/// The characters are those `HAProxy` takes for a server name
/// (`[A-Za-z0-9_.:-]`), so that a name can stand in a cookie, a CSV cell, a
/// metric label and a runtime command without quoting.
///
/// Names sort the way people count: `s2` before `s10`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no character at all.
    #[error("a name must not be empty")]
    Empty,
    /// It is longer than [`Name::MAX_LEN`] bytes.
    #[error("a name has at most {} characters", Name::MAX_LEN)]
    TooLong,
    /// It has a character that a name may not have.
    #[error("a name is made of letters, digits, '_', '.', ':' and '-', not {0:?}")]
    Character(char),
}

impl Name {
    /// The longest name, in bytes: a DNS label, and short enough that a
    /// member's announcement stays within one gossip packet.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_parts = parts(&self.0).cmp(parts(&other.0));
        // `s1` and `s01` count the same and are two names all the same.
        by_parts.then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Cuts a name into runs of digits and runs of anything else; of a run of
/// digits, leading zeros do not count and a longer one is a larger number.
fn parts(name: &str) -> impl Iterator<Item = (bool, usize, &str)> {
    name.as_bytes()
        .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
        .map(|run| {
            let text = std::str::from_utf8(run).unwrap_or_default();
            if run.first().is_some_and(u8::is_ascii_digit) {
                let digits = text.trim_start_matches('0');
                (false, digits.len(), digits)
            } else {
                (true, 0, text)
            }
        })
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(NameError::TooLong);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-');
        match text.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One life of a node: its gossip address, and the moment it started there.
///
/// A node that restarts, or goes on at another address, keeps its name but
/// gets a new id, so a late word about its former life is never taken for one
/// about the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberId {
    /// Where the node speaks gossip.
    pub addr: SocketAddr,
    /// Unix time of that start in milliseconds; a later life has a larger one.
    pub epoch: u64,
}

/// What a node tells the cluster about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The node's name, unique in the cluster by convention.
    pub name: Name,
    /// What the node is there for.
    pub role: Role,
}

impl Meta {
    /// The same of a node whose host has this address: its server is there too.
    #[must_use]
    pub fn at(mut self, ip: IpAddr) -> Self {
        if let Role::Server(announcement) = &mut self.role {
            announcement.addr.set_ip(ip);
        }
        self
    }
}

/// What a node is there for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A load balancer.
    Balancer,
    /// An agent that announces one server.
    Server(Announcement),
}

/// A server as its agent announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The service it belongs to: the backend's name on the load balancer.
    pub service: Name,
    /// Where it takes requests.
    pub addr: SocketAddr,
    /// Its share of the requests beside the others', `HAProxy`'s 0 to 256.
    pub weight: u16,
    /// Whether it takes requests now.
    pub phase: Phase,
    /// Free tags, `key=value`.
    pub tags: BTreeMap<String, String>,
}

/// Where an announced server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The app does not accept connections: not yet, or not any more.
    Down,
    /// The app takes requests.
    Ready,
    /// On its way out: keeps the users it has, takes no new ones.
    Draining,
    /// Gone: takes no request at all.
    Leaving,
}

/// A node that is known, with what it last said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which life of the node.
    pub id: MemberId,
    /// What it says of itself.
    pub meta: Meta,
}

/// A change in what is known about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    /// A member joined, or says something new of itself.
    Up(Member),
    /// A member does not answer; unless it refutes, it is declared down soon.
    Suspect(MemberId),
    /// A suspected member answered after all.
    Refuted(MemberId),
    /// A member failed: it stopped answering without a goodbye.
    Down(MemberId),
    /// A member said goodbye.
    Left(MemberId),
    /// The connection that a member keeps to us, its lifeline, broke: its
    /// process ended, or the way there did.
    HungUp(MemberId),
    /// What an operator last wanted of a server, here or at another balancer.
    Wanted(Intent),
}

/// What an operator wants of a server: a record that every balancer keeps and
/// hands on, the latest word counting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The server's service.
    pub service: Name,
    /// The server's name; it need not be there now.
    pub server: Name,
    /// What is wanted.
    pub wish: Wish,
    /// When, and by whom: a later one wins.
    pub version: Version,
}

/// One thing that can be wanted of a server. Each kind is a record of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// `set server … state`.
    State(Admin),
    /// `set server … weight`; `None` goes back to what the server announces.
    Weight(Option<u16>),
}

/// The state that an operator puts a server in, in `HAProxy`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// It takes what its health allows.
    Ready,
    /// It keeps its users and takes no new ones.
    Drain,
    /// It takes nothing.
    Maint,
}

/// Orders what different operators want of the same server: by a hybrid
/// logical clock, then by the node it was said at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Unix milliseconds, pushed past every version seen before.
    pub clock: u64,
    /// The gossip address of the balancer where it was said.
    pub writer: SocketAddr,
}

/// How a member is doing, in SWIM's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It does not answer and has not been declared down yet.
    Suspect,
    /// It failed.
    Down,
    /// It said goodbye.
    Left,
}

/// A member as the outside sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Which life of which node.
    pub id: MemberId,
    /// What it says of itself; `None` where that cannot be read, as from a
    /// later version of the program.
    pub meta: Option<Meta>,
    /// How it is doing.
    pub state: MemberState,
    /// Since when it is in this state.
    pub since: Instant,
    /// How often it refuted a suspicion; not known of the local node.
    pub incarnation: Option<u16>,
    /// How often it changed what it says, or rejoined, in this life.
    pub generation: u32,
    /// Whether it is this very node.
    pub local: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_refuses_what_would_need_quoting() {
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("a b".parse::<Name>(), Err(NameError::Character(' ')));
        assert_eq!("s1;x".parse::<Name>(), Err(NameError::Character(';')));
        assert_eq!("é".parse::<Name>(), Err(NameError::Character('é')));
        assert_eq!("x".repeat(64).parse::<Name>(), Err(NameError::TooLong));
        assert_eq!(
            "node-1.a_B:2".parse::<Name>().unwrap().as_str(),
            "node-1.a_B:2"
        );
    }

    #[test]
    fn names_sort_the_way_people_count() {
        let mut names: Vec<Name> = ["s10", "s2", "s1", "web", "s01", "10", "9", "s2b"]
            .map(|text| text.parse().unwrap())
            .into();
        names.sort();
        let sorted: Vec<&str> = names.iter().map(Name::as_str).collect();
        assert_eq!(sorted, ["9", "10", "s01", "s1", "s2", "s2b", "s10", "web"]);
    }

    #[test]
    fn a_name_from_the_wire_is_checked_like_any_other() {
        assert!(serde_json::from_str::<Name>("\"s1\"").is_ok());
        assert!(serde_json::from_str::<Name>("\"s1\\n\"").is_err());
    }
}
