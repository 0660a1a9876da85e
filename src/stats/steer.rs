//! The page's buttons: a form becomes what an operator wants of servers, which
//! goes the way of the runtime API, so that every balancer honours it.
//!
//! `HAProxy`'s own form works (`s=s1&s=s2&action=drain&b=%234`), and so do the
//! page's: `drain=s1` for one server, `undo=7` to take an action back.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderValue, header, uri::Authority};

use super::{page::Outcome, source::Source, view::BACKEND_ID};
use crate::{
    admin::{self, Declare, command::Weight, exec},
    membership::{Admin, Name, Wish},
    pool::Server,
};

/// The largest form: every server that a cluster can have, by its name.
pub(super) const MOST_BYTES: usize = 320 * 1024;

/// Actions that can be taken back: those of the last minutes of work.
const KEPT: usize = 32;

/// What is asked for by a form.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// Something of servers.
    Action(Action, Vec<String>),
    /// To take back what was done.
    Undo(u64),
    /// Nothing.
    Nothing,
}

/// What is asked of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    State(Admin),
    Weight(Weight),
    /// One of `HAProxy`'s that changes nothing here: checks and sessions are
    /// left to the runtime API.
    Idle,
}

/// The actions of this process that can be taken back.
#[derive(Debug, Default)]
pub(super) struct Undo(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    number: u64,
    kept: VecDeque<(u64, Vec<(Name, Wish)>)>,
}

impl Undo {
    /// Keeps what was wanted before, and numbers it.
    fn keep(&self, before: Vec<(Name, Wish)>) -> u64 {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.number += 1;
        let number = records.number;
        if records.kept.len() == KEPT {
            records.kept.pop_front();
        }
        records.kept.push_back((number, before));
        number
    }

    /// What was wanted before the action of that number, which is forgotten.
    fn take(&self, number: u64) -> Option<Vec<(Name, Wish)>> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = records.kept.iter().position(|(kept, _)| *kept == number)?;
        records.kept.remove(place).map(|(_, before)| before)
    }
}

/// Whether a request that changes something comes from the page itself, or
/// from no page at all. A browser says where a form was sent from; whoever can
/// leave that out is no browser that was lured.
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(HeaderValue::to_str);
    match text("sec-fetch-site") {
        Some(Ok("same-origin" | "none")) | None => {}
        Some(_) => return false,
    }
    let Some(Ok(host)) = text(header::HOST.as_str()) else {
        return false;
    };
    // Some browsers leave out one of the two.
    let sender = text(header::ORIGIN.as_str()).or_else(|| text(header::REFERER.as_str()));
    match sender {
        None => true,
        Some(sender) => sender.is_ok_and(|sender| authority(sender) == Some(host)),
    }
}

/// Whether a request names us by something that no stranger's name server
/// answers for: an address, `localhost`, the node's name, or a name without a
/// dot, as containers have. A page of a domain that is first its own and then
/// resolves to us (DNS rebinding) is of our origin in the browser's eyes, but
/// the browser still says whose name it asked for.
pub(super) fn is_called_by_name(headers: &HeaderMap, node: &str) -> bool {
    let host = headers.get(header::HOST).and_then(|host| {
        let authority: Authority = host.to_str().ok()?.parse().ok()?;
        Some(authority.host().to_owned())
    });
    host.is_some_and(|host| {
        let bare = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
        let is_label = !host.is_empty() && !host.contains(['.', ':']);
        is_label
            || host.eq_ignore_ascii_case(node)
            || bare.unwrap_or(&host).parse::<IpAddr>().is_ok()
    })
}

/// The authority of a URL; `None` for the origin `null`.
fn authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.split(['/', '?', '#']).next()
}

/// Does what a form asks for. The number is that under which it can be undone.
pub(super) async fn perform(
    source: &Source,
    declare: &Declare,
    undo: &Undo,
    form: &[u8],
) -> (Outcome, Option<u64>) {
    let (wishes, unknown) = match read(form, source.service.as_str()) {
        Err(Invalid) => return (Outcome::Invalid, None),
        Ok(Asked::Nothing) => return (Outcome::Nothing, None),
        Ok(Asked::Action(action, servers)) => wanted(source, action, &servers),
        Ok(Asked::Undo(number)) => match undo.take(number) {
            None => return (Outcome::Nothing, None),
            Some(before) => find(source, before),
        },
    };
    if wishes.is_empty() {
        let outcome = if unknown == 0 {
            Outcome::Nothing
        } else {
            Outcome::Invalid
        };
        return (outcome, None);
    }
    let before = wishes
        .iter()
        .map(|(server, wish)| (server.name.clone(), before(server, *wish)))
        .collect();
    if exec::declare(source, declare, &wishes).await.is_err() {
        return (Outcome::Failed, None);
    }
    let outcome = if unknown == 0 {
        Outcome::Done
    } else {
        Outcome::Partly
    };
    (outcome, Some(undo.keep(before)))
}

/// What is wanted of each server that is there, and how many are not.
fn wanted(
    source: &Source,
    action: Action,
    servers: &[String],
) -> (Vec<(Arc<Server>, Wish)>, usize) {
    let pool = source.pool.load();
    let known: Vec<&Arc<Server>> = servers
        .iter()
        .filter_map(|name| pool.by_name(name))
        .collect();
    let unknown = servers.len() - known.len();
    let wish = |server: &Arc<Server>| {
        let wish = match action {
            Action::State(state) => Wish::State(state),
            Action::Weight(weight) => Wish::Weight(exec::wanted_weight(weight, server)),
            Action::Idle => return None,
        };
        Some((Arc::clone(server), wish))
    };
    (known.into_iter().filter_map(wish).collect(), unknown)
}

/// The servers of wishes as they are now, and how many are gone.
fn find(source: &Source, wishes: Vec<(Name, Wish)>) -> (Vec<(Arc<Server>, Wish)>, usize) {
    let pool = source.pool.load();
    let all = wishes.len();
    let found: Vec<_> = wishes
        .into_iter()
        .filter_map(|(name, wish)| Some((Arc::clone(pool.by_name(name.as_str())?), wish)))
        .collect();
    let gone = all - found.len();
    (found, gone)
}

/// What is wanted of a server as long as `wish` is not yet.
fn before(server: &Server, wish: Wish) -> Wish {
    match wish {
        Wish::State(_) => Wish::State(server.state_wanted),
        Wish::Weight(_) => Wish::Weight(server.weight_wanted),
    }
}

/// The form makes no sense.
#[derive(Debug, PartialEq, Eq)]
struct Invalid;

/// Whether a form can be read; for [`super::fuzz`].
pub(super) fn makes_sense(form: &[u8], service: &str) -> bool {
    read(form, service).is_ok()
}

/// Reads a form. Of several actions or backends the last one counts, as in
/// `HAProxy`.
fn read(form: &[u8], service: &str) -> Result<Asked, Invalid> {
    let (mut action, mut backend, mut weight) = (None, None, None);
    let mut servers = Vec::new();
    for (name, value) in form_urlencoded::parse(form) {
        match &*name {
            "s" => servers.push(value.into_owned()),
            "b" => backend = Some(value),
            "action" => action = Some(value),
            "weight" => weight = Some(value),
            "undo" => return value.parse().map(Asked::Undo).map_err(|_| Invalid),
            "ready" | "drain" | "maint" => {
                let state = state(&name).ok_or(Invalid)?;
                return Ok(Asked::Action(state, vec![value.into_owned()]));
            }
            _ => {}
        }
    }
    let number = format!("#{BACKEND_ID}");
    match backend {
        // It is the backend that tells HAProxy where to look for servers.
        None => return Ok(Asked::Nothing),
        Some(backend) if backend == service || backend == number => {}
        Some(_) => return Err(Invalid),
    }
    let action = match action.as_deref() {
        Some("weight") => {
            let weight = weight.unwrap_or_default();
            Action::Weight(admin::weight(weight.trim()).map_err(|_| Invalid)?)
        }
        Some(action) => state(action).ok_or(Invalid)?,
        None => return Err(Invalid),
    };
    Ok(Asked::Action(action, servers))
}

/// An action by `HAProxy`'s name for it.
fn state(action: &str) -> Option<Action> {
    Some(match action {
        "ready" | "enable" | "start" => Action::State(Admin::Ready),
        "drain" | "stop" => Action::State(Admin::Drain),
        "maint" | "disable" => Action::State(Admin::Maint),
        "dhlth" | "ehlth" | "hrunn" | "hnolb" | "hdown" | "dagent" | "eagent" | "arunn"
        | "adown" | "shutdown" => Action::Idle,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::fixture;

    fn asked(form: &str) -> Result<Asked, Invalid> {
        read(form.as_bytes(), "nodes")
    }

    fn action(state: Admin, servers: &[&str]) -> Asked {
        let servers = servers.iter().map(|name| (*name).to_owned()).collect();
        Asked::Action(Action::State(state), servers)
    }

    #[test]
    fn haproxys_form_is_understood() {
        let both = Ok(action(Admin::Maint, &["srv1", "srv2"]));
        assert_eq!(asked("s=srv1&s=srv2&action=maint&b=%234"), both);
        assert_eq!(asked("b=nodes&s=srv1&action=disable&s=srv2"), both);
        let last = Ok(action(Admin::Drain, &["s1"]));
        assert_eq!(asked("action=ready&b=web&s=s1&action=drain&b=nodes"), last);
        assert_eq!(asked("s=s1&action=maint&b=web"), Err(Invalid));
        assert_eq!(asked("s=s1&action=explode&b=%234"), Err(Invalid));
        assert_eq!(asked("s=s1&action=maint"), Ok(Asked::Nothing));
        assert_eq!(asked(""), Ok(Asked::Nothing));
    }

    #[test]
    fn a_button_of_one_server_is_about_that_one_alone() {
        let one = Ok(action(Admin::Drain, &["s3"]));
        assert_eq!(asked("b=nodes&s=s1&s=s2&weight=&drain=s3"), one);
    }

    #[test]
    fn a_weight_is_read_as_the_runtime_api_reads_it() {
        let weight = |text: &str| asked(&format!("b=nodes&s=s1&action=weight&weight={text}"));
        let percent = Asked::Action(Action::Weight(Weight::Percent(50)), vec!["s1".into()]);
        assert_eq!(weight("50%25"), Ok(percent));
        for wrong in ["", "x", "257", "-1"] {
            assert_eq!(weight(wrong), Err(Invalid), "{wrong}");
        }
    }

    #[test]
    fn only_the_page_itself_and_no_page_at_all_may_steer() {
        let own = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert("host", "ha:1936".parse().unwrap());
            for (name, value) in fields {
                headers.insert(*name, value.parse().unwrap());
            }
            is_own(&headers)
        };
        assert!(own(&[]));
        assert!(own(&[("origin", "http://ha:1936")]));
        assert!(own(&[
            ("origin", "http://ha:1936"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(own(&[("referer", "http://ha:1936/;up")]));
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "http://ha:80"),
            ("origin", "null"),
            ("referer", "http://evil.example/?http://ha:1936/"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(!own(&[(name, value)]), "{name}: {value}");
        }
        assert!(!is_own(&HeaderMap::new()));
    }

    #[test]
    fn only_a_name_that_nobody_else_answers_for_is_ours() {
        let ours = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().unwrap());
            is_called_by_name(&headers, "lb.example.org")
        };
        for host in [
            "127.0.0.1:1936",
            "10.0.0.5",
            "[::1]:1936",
            "[2001:db8::1]",
            "localhost:1936",
            "ha",
            "ha:1936",
            "LB.example.org:1936",
        ] {
            assert!(ours(host), "{host}");
        }
        for host in [
            "evil.example:1936",
            "lb.example.org.evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "ha.",
            "",
            ":1936",
            "[evil.example]",
            "a b",
        ] {
            assert!(!ours(host), "{host}");
        }
        assert!(!is_called_by_name(&HeaderMap::new(), "ha"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_action_can_be_taken_back_once() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&said);
        let declare: Declare = Box::new(move |_, server, wish| {
            hears.lock().unwrap().push(format!("{server} {wish:?}"));
            Ok(())
        });
        let (source, undo) = (fixture::source(), Undo::default());
        let perform = async |form: &str| perform(&source, &declare, &undo, form.as_bytes()).await;
        let drain = "b=nodes&action=drain&s=s1&s=s9";
        assert_eq!(perform(drain).await, (Outcome::Partly, Some(1)));
        let weight = "b=nodes&action=weight&weight=7&s=s1";
        assert_eq!(perform(weight).await, (Outcome::Done, Some(2)));
        assert_eq!(perform("undo=2").await, (Outcome::Done, Some(3)));
        assert_eq!(perform("undo=1").await, (Outcome::Done, Some(4)));
        assert_eq!(perform("undo=1").await, (Outcome::Nothing, None));
        assert_eq!(
            *said.lock().unwrap(),
            [
                "s1 State(Drain)",
                "s1 Weight(Some(7))",
                "s1 Weight(None)",
                "s1 State(Ready)"
            ]
        );
        let nobody = "b=nodes&action=drain&s=s9";
        assert_eq!(perform(nobody).await, (Outcome::Invalid, None));
        let idle = "b=nodes&action=dhlth&s=s1";
        assert_eq!(perform(idle).await, (Outcome::Nothing, None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_gossip_does_not_take_is_told() {
        let declare: Declare = Box::new(|_, _, _| Err("not yet".into()));
        let form = b"b=nodes&action=drain&s=s1";
        let outcome = perform(&fixture::source(), &declare, &Undo::default(), form).await;
        assert_eq!(outcome, (Outcome::Failed, None));
    }

    proptest! {
        #[test]
        fn no_form_is_too_strange(form: Vec<u8>) {
            read(&form, "nodes").ok();
        }
    }
}
