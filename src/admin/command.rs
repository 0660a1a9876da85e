//! Reads the words of a command. Pure.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use super::{
    Level, absent,
    answer::Answer,
    arguments::Arguments,
    verbs::{OF_SESSION, VERBS},
};
use crate::{
    membership::Admin,
    pool::state::{StaticServer, Verdict},
};

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Lists what may be asked, or what of it begins with these words.
    Help(Vec<String>),
    /// Changes between one line and a conversation.
    Prompt(Vec<Prompt>),
    /// Ends the connection.
    Quit,
    /// Puts a number or a word before every message.
    Severity(Severity),
    /// Lowers what this connection may do.
    Lower(Level),
    /// How long this connection may be idle.
    Timeout(Duration),
    /// Looks at or changes a mode that old scripts ask for before they add a
    /// server, and that changes nothing here.
    Mode(Mode, Option<bool>),
    /// What this connection may do.
    ShowLevel,
    /// Looks at the load balancer.
    Show(Show),
    /// What share of the requests a server gets.
    GetWeight(Target),
    /// Steers a server, at every load balancer.
    Set(Target, Change),
    /// Tells this load balancer alone something about a server.
    Tell(Target, Tell),
    /// Adds a server, or tells what is wrong with it.
    Add(Target, Result<Box<StaticServer>, String>),
    /// Removes a server.
    Delete(Target),
    /// Waits for a time, or until the server can be removed.
    Wait(Duration, Option<Target>),
    /// Has counters start from zero.
    Clear(Clear),
    /// Ends a session.
    EndSession(u64),
    /// Ends the sessions that a server has.
    EndSessions(Target),
    /// Accepts client connections, or refuses them.
    Frontend(bool),
    /// How many client connections there may be; 0 for as many as can be.
    Maxconn(Scope, u32),
    /// The answer is known already.
    Known(Answer),
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// The process.
    Info(Format),
    /// The rows of the statistics.
    Stat(Rows),
    /// The servers' states, of one backend or of all.
    Servers(Option<String>),
    /// The servers' connections, of one backend or of all.
    Connections(Option<String>),
    /// The backends' names.
    Backends,
    /// The requests under way.
    Sessions(Sessions),
    /// Malformed messages that were kept, of one proxy or of all.
    Errors(Option<String>),
    /// What happened lately, by name, or the names there are.
    Events(Option<String>),
    /// The version.
    Version,
    /// The environment, or one variable of it.
    Env(Option<String>),
}

/// How fields are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format {
    /// In which form.
    pub listing: Listing,
    /// With a description of each.
    pub described: bool,
}

/// The form in which fields are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listing {
    /// `Name: value` lines, or CSV.
    #[default]
    Plain,
    /// A line a field, with its nature and its type.
    Typed,
    /// The same as JSON.
    Json,
}

/// Which rows of the statistics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// Only these; `None` for all.
    pub only: Option<Selection>,
    /// Leaves out the servers that take no request.
    pub hide_down: bool,
    /// Leaves out the servers in maintenance.
    pub hide_maint: bool,
    /// How they are printed.
    pub format: Format,
}

/// Rows by their numbers, as `HAProxy` selects them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The proxy's number or name; -1 for every one.
    pub proxy: String,
    /// A bit for each kind of row: 1 frontends, 2 backends, 4 servers.
    pub kinds: i64,
    /// The server's number; -1 for every one.
    pub server: i64,
}

/// Which sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sessions {
    /// Every one.
    All,
    /// The one of this number.
    Id(u64),
    /// Those that have taken so long.
    Older(Duration),
    /// Those that a server has.
    Of(Target),
}

/// A server and its backend, as they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
}

/// What is to become of a server, at every load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It takes traffic, drains, or is out.
    State(Admin),
    /// Its share of the requests.
    Weight(Weight),
}

/// What one load balancer alone is told about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// How it is, until a check says otherwise.
    Health(Verdict),
    /// Whether its checks are on.
    Checks(bool),
    /// Whether checks by an agent of `HAProxy`'s kind are on.
    AgentChecks(bool),
    /// The port of its checks; 0 for its own.
    CheckPort(u16),
    /// The address of its checks, and their port.
    CheckAddr(IpAddr, Option<u16>),
    /// How many requests it takes at a time, `None` for as many as come.
    Maxconn(Option<NonZeroU32>),
    /// Its address, and its port.
    Addr(IpAddr, Option<u16>),
    /// Nothing: this is why.
    Refused(String),
}

impl Tell {
    pub(super) fn addr((ip, port): (IpAddr, Option<u16>)) -> Self {
        Self::Addr(ip, port)
    }

    pub(super) fn check_addr((ip, port): (IpAddr, Option<u16>)) -> Self {
        Self::CheckAddr(ip, port)
    }
}

/// A new weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// 0 to 256.
    Absolute(u16),
    /// Of the weight it has by itself.
    Percent(u32),
}

/// Whose connections are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The process's.
    Process,
    /// The frontend's.
    Frontend,
}

/// Which counters start from zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clear {
    /// The maxima.
    Maxima,
    /// All.
    All,
    /// A server's.
    Server(Target),
}

/// A step of how a connection goes on after its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// To a prompt, or back.
    Toggle,
    /// It ends with the line.
    NonInteractive,
    /// It goes on, and no prompt is shown.
    Interactive,
    /// It goes on, with a prompt.
    Shown,
    /// The prompt shows the uptime, or no longer does.
    Timed,
}

/// A mode that old scripts ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `expert-mode`.
    Expert,
    /// `experimental-mode`.
    Experimental,
}

/// What stands before a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing.
    None,
    /// `[3]: `.
    Number,
    /// `[err]: `.
    Text,
}

/// Why words are no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such command.
    Unknown,
    /// It takes a higher level.
    Denied,
    /// It is one, but not with these arguments.
    Wrong(String),
}

/// Reads a command's words, as far as the level allows it.
pub fn read(words: &[String], has_payload: bool, level: Level) -> Result<Command, Refusal> {
    let mut verbs = VERBS.iter().chain(OF_SESSION).chain(absent::VERBS);
    let Some((verb, arguments)) = verbs.find_map(|verb| verb.takes(words)) else {
        return Err(Refusal::Unknown);
    };
    if verb.level > level {
        return Err(Refusal::Denied);
    }
    (verb.read)(&Arguments::new(arguments, has_payload)).map_err(Refusal::Wrong)
}

/// A line for each command of the level that begins with the same words as
/// `like`, as many of them as any command has, and one for each that belongs
/// to the conversation. Also, how many words that were.
pub fn list(level: Level, like: &[String]) -> (usize, String) {
    let allowed = || VERBS.iter().filter(|verb| verb.level <= level);
    let common = allowed().map(|verb| verb.common(like)).max().unwrap_or(0);
    let alike = allowed().filter(|verb| verb.common(like) == common);
    let lines: Vec<String> = alike.chain(OF_SESSION).map(Verb::line).collect();
    (common, lines.join("\n"))
}

/// A command as it is told from others, listed and read.
pub(super) struct Verb {
    pub(super) words: &'static str,
    pub(super) arguments: &'static str,
    pub(super) about: &'static str,
    pub(super) level: Level,
    pub(super) read: fn(&Arguments<'_>) -> Result<Command, String>,
}

impl Verb {
    /// Itself and what follows its own words, if `words` begin with those.
    fn takes<'a>(&self, words: &'a [String]) -> Option<(&Self, &'a [String])> {
        let own = self.words.split(' ').count();
        let rest = words.get(own..)?;
        (self.common(words) == own).then_some((self, rest))
    }

    /// How many of its own words `words` begin with.
    fn common(&self, words: &[String]) -> usize {
        let pairs = self.words.split(' ').zip(words);
        pairs.take_while(|(own, given)| own == given).count()
    }

    fn line(&self) -> String {
        let usage = [self.words, self.arguments].join(" ");
        format!("  {:<40}: {}", usage.trim_end(), self.about)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        let words = text.split(' ').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    fn command(text: &str) -> Result<Command, Refusal> {
        read(&words(text), false, Level::Admin)
    }

    fn wrong(text: &str) -> String {
        match command(text) {
            Err(Refusal::Wrong(why)) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn s1() -> Target {
        Target {
            backend: "nodes".to_owned(),
            server: "s1".to_owned(),
        }
    }

    #[test]
    fn a_servers_state_is_set_in_three_ways() {
        let set = |state| Ok(Command::Set(s1(), Change::State(state)));
        assert_eq!(
            command("set server nodes/s1 state drain"),
            set(Admin::Drain)
        );
        assert_eq!(command("enable server nodes/s1"), set(Admin::Ready));
        assert_eq!(command("disable server nodes/s1"), set(Admin::Maint));
    }

    #[test]
    fn a_weight_is_a_number_or_a_percentage() {
        let set = |weight| Ok(Command::Set(s1(), Change::Weight(weight)));
        assert_eq!(
            command("set weight nodes/s1 256"),
            set(Weight::Absolute(256))
        );
        assert_eq!(
            command("set server nodes/s1 weight 50%"),
            set(Weight::Percent(50))
        );
    }

    #[test]
    fn errors_are_in_the_words_that_clients_compare() {
        let target = "Require 'backend/server'.";
        for text in [
            "get weight s1",
            "enable server",
            "del server s1",
            "shutdown sessions server",
        ] {
            assert_eq!(wrong(text), target, "{text}");
        }
        for (text, why) in [
            (
                "set server nodes/s1 state up",
                "'set server <srv> state' expects 'ready', 'drain' and 'maint'.",
            ),
            (
                "set server nodes/s1 health",
                "'set server <srv> health' expects 'up', 'stopping', or 'down'.",
            ),
            (
                "set server nodes/s1 addr",
                "set server <b>/<s> addr requires an address and optionally a port.",
            ),
            ("set server nodes/s1 addr x", "Invalid addr 'x'"),
            (
                "set server nodes/s1 check-port x",
                "provided port is not an integer",
            ),
            (
                "set server nodes/s1 check-port 99999",
                "provided port is invalid",
            ),
            (
                "set server nodes/s1 agent up",
                "agent checks are not enabled on this server.",
            ),
            (
                "set server nodes/s1 fqdn",
                "set server <b>/<s> fqdn requires a FQDN.",
            ),
            (
                "set server nodes/s1 fqdn a.b",
                "set server <b>/<s> fqdn failed because no resolution is configured.",
            ),
            ("set weight nodes/s1", "Require <weight> or <weight%>."),
            (
                "set weight nodes/s1 257",
                "Absolute weight can only be between 0 and 256 inclusive.",
            ),
            (
                "set weight nodes/s1 -1",
                "Absolute weight can only be between 0 and 256 inclusive.",
            ),
            (
                "set weight nodes/s1 -1%",
                "Relative weight must be positive.",
            ),
            (
                "set weight nodes/s1 1x",
                "Trailing garbage in weight string",
            ),
            (
                "set weight nodes/s1 x1",
                "Empty weight string empty or preceded by garbage",
            ),
            ("set maxconn server nodes/s1", "Require <maxconn>."),
            (
                "set maxconn server nodes/s1 x",
                "maxconn string empty or preceded by garbage",
            ),
            (
                "set maxconn server nodes/s1 3x",
                "Trailing garbage in maxconn string",
            ),
        ] {
            let told = Ok(Command::Tell(s1(), Tell::Refused(why.to_owned())));
            assert_eq!(command(text), told, "{text}");
        }
        for (text, why) in [
            ("set maxconn frontend localnodes", "Integer value expected."),
            ("set maxconn frontend web 3", "No such frontend."),
            ("set maxconn global -1", "Value out of range."),
            ("set timeout cli 0", "Invalid timeout value."),
            ("set timeout client 3", "'set timeout' only supports 'cli'."),
            ("disable frontend", "A frontend name is expected."),
            (
                "shutdown session x",
                "Session pointer expected (use 'show sess').",
            ),
            ("show table nodes", "No such table"),
            (
                "get map m key",
                "Unknown map identifier. Please use #<id> or <file>.",
            ),
            ("get map m", "Missing map identifier and/or key."),
        ] {
            assert_eq!(wrong(text), why, "{text}");
        }
    }

    #[test]
    fn connections_are_limited_in_three_places() {
        let limit = |scope, most| Ok(Command::Maxconn(scope, most));
        let text = "set maxconn frontend localnodes 5";
        assert_eq!(command(text), limit(Scope::Frontend, 5));
        assert_eq!(command("set maxconn global 0"), limit(Scope::Process, 0));
        let told = |limit| Ok(Command::Tell(s1(), Tell::Maxconn(NonZeroU32::new(limit))));
        assert_eq!(command("set maxconn server nodes/s1 7"), told(7));
        assert_eq!(command("set maxconn server nodes/s1 0"), told(0));
        let negative = Tell::Refused("Value out of range.".to_owned());
        let text = "set maxconn server nodes/s1 -1";
        assert_eq!(command(text), Ok(Command::Tell(s1(), negative)));
    }

    #[test]
    fn what_cannot_be_limited_is_not_said_to_be() {
        assert!(wrong("set rate-limit sessions global 5").contains("not limited"));
        let unlimited = command("set rate-limit sessions global 0");
        assert_eq!(unlimited, Ok(Command::Known(Answer::silent())));
    }

    #[test]
    fn what_takes_a_higher_level_is_denied_before_it_is_looked_at() {
        for (text, level) in [
            ("set server nonsense", Level::Operator),
            ("show env", Level::User),
            ("show sess", Level::User),
            ("clear counters", Level::User),
            ("clear counters all", Level::Operator),
            ("operator", Level::User),
        ] {
            assert_eq!(
                read(&words(text), false, level),
                Err(Refusal::Denied),
                "{text}"
            );
        }
        assert_eq!(command("clear counters"), Ok(Command::Clear(Clear::Maxima)));
        assert_eq!(
            command("clear counters all"),
            Ok(Command::Clear(Clear::All))
        );
    }

    #[test]
    fn rows_are_selected_as_haproxyadmin_does() {
        let stat = |text: &str| match command(text) {
            Ok(Command::Show(Show::Stat(rows))) => rows,
            other => panic!("{text}: {other:?}"),
        };
        let rows = stat("show stat 4 4 -1 up");
        let only = rows.only.unwrap();
        assert_eq!((only.proxy.as_str(), only.kinds, only.server), ("4", 4, -1));
        assert!(rows.hide_down && !rows.hide_maint);
        let rows = stat("show stat typed desc no-maint");
        assert_eq!(rows.only, None);
        assert_eq!(rows.format.listing, Listing::Typed);
        assert!(rows.format.described && rows.hide_maint);
        assert_eq!(stat("show stat json").format.listing, Listing::Json);
    }

    #[test]
    fn a_new_server_has_what_its_keywords_say() {
        let add = |text: &str| match command(&format!("add server nodes/s3 {text}")) {
            Ok(Command::Add(_, server)) => server,
            other => panic!("{text}: {other:?}"),
        };
        let server = add("10.0.0.3:80 weight 7 check inter 500 rise 1 fall 4").unwrap();
        assert_eq!((server.target.as_str(), server.weight), ("10.0.0.3:80", 7));
        let plan = server.check.unwrap();
        assert_eq!(plan.interval, Duration::from_millis(500));
        assert_eq!(plan.thresholds.fall.get(), 4);
        assert_eq!(add("10.0.0.3:80").unwrap().check, None);
        for (text, why) in [
            (
                "",
                "'server' expects <name> and <addr>[:<port>] as arguments.",
            ),
            ("10.0.0.3:80 foo", "unknown keyword 'foo'"),
            (
                "10.0.0.3:80 weight 300",
                "weight of server s3 is not within 0 and 256 (300).",
            ),
        ] {
            assert_eq!(add(text.trim()).unwrap_err(), why);
        }
        assert!(
            add("host:80")
                .unwrap_err()
                .starts_with("invalid address 'host:80'")
        );
    }

    #[test]
    fn times_have_haproxys_units() {
        let cli = |text: &str| command(&format!("set timeout cli {text}"));
        let seconds = |n| Ok(Command::Timeout(Duration::from_secs(n)));
        assert_eq!(cli("30"), seconds(30));
        assert_eq!(cli("2m"), seconds(120));
        assert_eq!(cli("5000ms"), seconds(5));
        assert_eq!(cli("1h"), seconds(3600));
        assert_eq!(
            wrong("set timeout cli 3601"),
            "Timeout too long: 1h is the most."
        );
        assert_eq!(wrong("set timeout cli 9d9"), "Invalid timeout value.");
        let wait = |time| Ok(Command::Wait(time, None));
        assert_eq!(command("wait 5"), wait(Duration::from_millis(5)));
        let target = Some(s1());
        assert_eq!(
            command("wait 2s srv-removable nodes/s1"),
            Ok(Command::Wait(Duration::from_secs(2), target))
        );
        assert!(wrong("wait").starts_with("Usage: wait"));
    }

    #[test]
    fn an_unknown_command_is_not_read() {
        assert_eq!(command("foo bar"), Err(Refusal::Unknown));
        assert_eq!(command("show"), Err(Refusal::Unknown));
        assert_eq!(command("shutdown sessions"), Err(Refusal::Unknown));
    }

    #[test]
    fn help_lists_what_the_level_allows_and_is_most_like_what_was_given() {
        let listed = |level, text: &str| list(level, &words(text));
        assert!(!listed(Level::User, "").1.contains("set server"));
        let all = listed(Level::Admin, "").1;
        assert!(
            all.contains("\n  set server <bk>/<srv> [opts]            : "),
            "{all}"
        );
        assert!(!all.contains("show map"), "there are none");
        let (common, servers) = listed(Level::User, "show servers foo");
        assert_eq!(common, 2);
        assert_eq!(servers.lines().count(), 2 + 3, "{servers}");
        assert!(servers.ends_with(": disconnect"));
        assert_eq!(listed(Level::User, "foo").0, 0);
    }

    #[test]
    fn the_first_command_that_fits_is_the_longest_one() {
        let verbs: Vec<&Verb> = VERBS
            .iter()
            .chain(OF_SESSION)
            .chain(absent::VERBS)
            .collect();
        for (index, verb) in verbs.iter().enumerate() {
            let own = words(verb.words);
            let first = verbs.iter().position(|other| other.takes(&own).is_some());
            assert_eq!(first, Some(index), "{}", verb.words);
        }
    }

    proptest! {
        #[test]
        fn any_words_can_be_read(words in proptest::collection::vec(".*", 0..8)) {
            read(&words, false, Level::Admin).ok();
            list(Level::Admin, &words);
        }

        #[test]
        fn any_arguments_of_a_command_can_be_read(
            verb in proptest::sample::select(
                VERBS.iter().chain(absent::VERBS).map(|verb| verb.words).collect::<Vec<_>>()
            ),
            arguments in proptest::collection::vec("[-+0-9a-z%/é:.]{0,12}", 0..6),
            has_payload in proptest::bool::ANY,
        ) {
            let own = verb.split(' ').map(str::to_owned);
            let words: Vec<String> = own.chain(arguments).collect();
            let unknown = matches!(read(&words, has_payload, Level::Admin), Err(Refusal::Unknown));
            prop_assert!(!unknown);
        }
    }
}
