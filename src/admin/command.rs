//! Reads the words of a command. Pure.

use super::Level;
use crate::membership::Admin;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Lists what may be asked, or what of it begins with this word.
    Help(Option<String>),
    /// Changes between one line and a conversation.
    Prompt(Prompt),
    /// Ends the connection.
    Quit,
    /// Puts a number or a word before every message.
    Severity(Severity),
    /// What this connection may do.
    ShowLevel,
    /// Looks at the load balancer.
    Show(Show),
    /// What share of the requests a server gets.
    GetWeight(Target),
    /// Steers a server.
    Set(Target, Change),
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// The process.
    Info,
    /// The rows of the statistics.
    Stat(Rows),
    /// The servers' states, of one backend or of all.
    Servers(Option<String>),
    /// The backends' names.
    Backends,
    /// The version.
    Version,
    /// The environment, or one variable of it.
    Env(Option<String>),
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

/// A server and its backend, as they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
}

/// What is to become of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It takes traffic, drains, or is out.
    State(Admin),
    /// Its share of the requests.
    Weight(Weight),
}

/// A new weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// 0 to 256.
    Absolute(u16),
    /// Of the weight it has by itself.
    Percent(u32),
}

/// How a connection goes on after its first line.
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
    /// There is no such command; the first word that was given.
    Unknown(String),
    /// It takes a higher level.
    Denied,
    /// It is one, but not with these arguments.
    Wrong(String),
}

/// Reads a command's words, as far as the level allows it.
pub fn read(words: &[String], level: Level) -> Result<Command, Refusal> {
    let Some((verb, arguments)) = VERBS.iter().find_map(|verb| verb.takes(words)) else {
        return Err(Refusal::Unknown(words.first().cloned().unwrap_or_default()));
    };
    if verb.level > level {
        return Err(Refusal::Denied);
    }
    (verb.read)(&Arguments(arguments)).map_err(Refusal::Wrong)
}

/// A line for each command of the level; only for those that begin with
/// `word`, where it is given and there are any.
pub fn list(level: Level, word: Option<&str>) -> String {
    let allowed = || VERBS.iter().filter(|verb| verb.level <= level);
    let begins = |verb: &&Verb| verb.words.split(' ').next() == word;
    let mut verbs: Vec<&Verb> = allowed().filter(begins).collect();
    if verbs.is_empty() {
        verbs = allowed().collect();
    }
    let lines: Vec<String> = verbs.into_iter().map(Verb::line).collect();
    lines.join("\n")
}

/// Whether any command of the level begins with `word`.
pub fn is_known(level: Level, word: &str) -> bool {
    let begins = |verb: &Verb| verb.level <= level && verb.words.split(' ').next() == Some(word);
    VERBS.iter().any(begins)
}

/// A command as it is told from others, listed and read.
struct Verb {
    words: &'static str,
    arguments: &'static str,
    about: &'static str,
    level: Level,
    read: fn(&Arguments<'_>) -> Result<Command, String>,
}

impl Verb {
    /// Itself and what follows its own words, if `words` begin with those.
    fn takes<'a>(&self, words: &'a [String]) -> Option<(&Self, &'a [String])> {
        let mut rest = words;
        for own in self.words.split(' ') {
            let (first, after) = rest.split_first()?;
            if first != own {
                return None;
            }
            rest = after;
        }
        Some((self, rest))
    }

    fn line(&self) -> String {
        let usage = format!("{} {}", self.words, self.arguments);
        format!("  {usage:<44}: {}", self.about)
    }
}

/// Every command, in the order in which help lists them.
#[rustfmt::skip]
const VERBS: &[Verb] = &[
    Verb { words: "disable server", arguments: "<bk>/<srv>", about: "take a server out (same as 'set server ... state maint')",
        level: Level::Admin, read: |args| set_state(args, Admin::Maint) },
    Verb { words: "enable server", arguments: "<bk>/<srv>", about: "let a server take traffic (same as 'set server ... state ready')",
        level: Level::Admin, read: |args| set_state(args, Admin::Ready) },
    Verb { words: "get weight", arguments: "<bk>/<srv>", about: "report a server's current weight",
        level: Level::User, read: |args| Ok(Command::GetWeight(args.target()?)) },
    Verb { words: "set server", arguments: "<bk>/<srv> [opts]", about: "change a server's state or weight",
        level: Level::Admin, read: set_server },
    Verb { words: "set severity-output", arguments: "[none|number|string]", about: "set presence of severity level in feedback information",
        level: Level::User, read: severity },
    Verb { words: "set weight", arguments: "<bk>/<srv> <weight>[%]", about: "change a server's weight",
        level: Level::Admin, read: |args| Ok(Command::Set(args.target()?, Change::Weight(weight(args.get(1))?))) },
    Verb { words: "show backend", arguments: "", about: "list backends in the current running config",
        level: Level::User, read: |_| Ok(Command::Show(Show::Backends)) },
    Verb { words: "show cli level", arguments: "", about: "display the level of the current CLI session",
        level: Level::User, read: |_| Ok(Command::ShowLevel) },
    Verb { words: "show env", arguments: "[var]", about: "dump environment variables known to the process",
        level: Level::Operator, read: |args| Ok(Command::Show(Show::Env(args.optional(0)))) },
    Verb { words: "show info", arguments: "", about: "report information about the running process",
        level: Level::User, read: show_info },
    Verb { words: "show servers state", arguments: "[<backend>]", about: "dump volatile server information (all or for a single backend)",
        level: Level::User, read: |args| Ok(Command::Show(Show::Servers(args.optional(0)))) },
    Verb { words: "show stat", arguments: "[<px> <type> <sid>] [up|no-maint]", about: "report counters for each proxy and server",
        level: Level::User, read: show_stat },
    Verb { words: "show version", arguments: "", about: "show version of the current process",
        level: Level::User, read: |_| Ok(Command::Show(Show::Version)) },
    Verb { words: "help", arguments: "[<command>]", about: "list matching or all commands",
        level: Level::User, read: |args| Ok(Command::Help(args.optional(0))) },
    Verb { words: "prompt", arguments: "[n|i|p]", about: "toggle interactive mode with prompt",
        level: Level::User, read: prompt },
    Verb { words: "quit", arguments: "", about: "disconnect",
        level: Level::User, read: |_| Ok(Command::Quit) },
];

/// The words behind a command's own.
struct Arguments<'a>(&'a [String]);

impl Arguments<'_> {
    /// One of them; empty where there is none, as `HAProxy` reads it.
    fn get(&self, index: usize) -> &str {
        self.0.get(index).map_or("", String::as_str)
    }

    fn optional(&self, index: usize) -> Option<String> {
        self.0.get(index).cloned()
    }

    /// The first, as a server.
    fn target(&self) -> Result<Target, String> {
        match self.get(0).split_once('/') {
            Some((backend, server)) => Ok(Target {
                backend: backend.to_owned(),
                server: server.to_owned(),
            }),
            None => Err("Require 'backend/server'.".to_owned()),
        }
    }
}

fn set_state(args: &Arguments<'_>, state: Admin) -> Result<Command, String> {
    Ok(Command::Set(args.target()?, Change::State(state)))
}

fn set_server(args: &Arguments<'_>) -> Result<Command, String> {
    let target = args.target()?;
    let change = match (args.get(1), args.get(2)) {
        ("state", "ready") => Change::State(Admin::Ready),
        ("state", "drain") => Change::State(Admin::Drain),
        ("state", "maint") => Change::State(Admin::Maint),
        ("state", _) => {
            return Err(
                "'set server <srv> state' expects 'ready', 'drain' and 'maint'.".to_owned(),
            );
        }
        ("weight", text) => Change::Weight(weight(text)?),
        _ => return Err("usage: set server <backend>/<server> state | weight".to_owned()),
    };
    Ok(Command::Set(target, change))
}

/// Reads a weight, and finds the fault that `HAProxy` would find first.
pub fn weight(text: &str) -> Result<Weight, String> {
    if text.is_empty() {
        return Err("Require <weight> or <weight%>.".to_owned());
    }
    let sign = usize::from(text.starts_with(['-', '+']));
    let digits = |c: char| c.is_ascii_digit();
    let end = text
        .char_indices()
        .skip(sign)
        .find(|(_, c)| !digits(*c))
        .map_or(text.len(), |(at, _)| at);
    let (number, rest) = text.split_at(end);
    if !number.ends_with(digits) {
        return Err("Empty weight string empty or preceded by garbage".to_owned());
    }
    // What is too long for a number is out of range in any case.
    let magnitude = number.trim_start_matches(['-', '+']);
    let magnitude = magnitude.parse::<u32>().unwrap_or(u32::MAX);
    let negative = number.starts_with('-') && magnitude > 0;
    match (u16::try_from(magnitude), rest) {
        (_, "%") if negative => Err("Relative weight must be positive.".to_owned()),
        (_, "%") => Ok(Weight::Percent(magnitude)),
        (Ok(weight @ 0..=256), "") if !negative => Ok(Weight::Absolute(weight)),
        (Ok(0..=256), _) if !negative => Err("Trailing garbage in weight string".to_owned()),
        _ => Err("Absolute weight can only be between 0 and 256 inclusive.".to_owned()),
    }
}

fn show_info(args: &Arguments<'_>) -> Result<Command, String> {
    if args.0.is_empty() {
        return Ok(Command::Show(Show::Info));
    }
    // Whoever asks for another format could not read this one.
    Err("'show info' takes no arguments.".to_owned())
}

fn show_stat(args: &Arguments<'_>) -> Result<Command, String> {
    const EXPECTED: &str =
        "'show stat' expects [{<iid>|<proxy>} <type> <sid>] [up|no-maint], and prints CSV.";
    let (only, flags) = match args.0 {
        [proxy, kinds, server, flags @ ..] => {
            let number = |text: &String| text.parse::<i64>().map_err(|_| EXPECTED.to_owned());
            let selection = Selection {
                proxy: proxy.clone(),
                kinds: number(kinds)?,
                server: number(server)?,
            };
            (Some(selection), flags)
        }
        flags => (None, flags),
    };
    let mut rows = Rows {
        only,
        ..Rows::default()
    };
    for flag in flags {
        match flag.as_str() {
            "up" => rows.hide_down = true,
            "no-maint" => rows.hide_maint = true,
            _ => return Err(EXPECTED.to_owned()),
        }
    }
    Ok(Command::Show(Show::Stat(rows)))
}

fn prompt(args: &Arguments<'_>) -> Result<Command, String> {
    Ok(Command::Prompt(match args.get(0) {
        "" => Prompt::Toggle,
        "n" => Prompt::NonInteractive,
        "i" => Prompt::Interactive,
        "p" => Prompt::Shown,
        _ => return Err("'prompt' expects nothing, 'n', 'i' or 'p'.".to_owned()),
    }))
}

fn severity(args: &Arguments<'_>) -> Result<Command, String> {
    Ok(Command::Severity(match args.get(0) {
        "none" => Severity::None,
        "number" => Severity::Number,
        "string" => Severity::Text,
        _ => return Err("one of 'none', 'number', 'string' is a required argument".to_owned()),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(text: &str) -> Result<Command, Refusal> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        read(&words, Level::Admin)
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
        for (text, why) in [
            ("get weight s1", "Require 'backend/server'."),
            ("enable server", "Require 'backend/server'."),
            (
                "set server nodes/s1 state up",
                "'set server <srv> state' expects 'ready', 'drain' and 'maint'.",
            ),
            (
                "set server nodes/s1 addr 1.2.3.4",
                "usage: set server <backend>/<server> state | weight",
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
        ] {
            assert_eq!(wrong(text), why, "{text}");
        }
    }

    #[test]
    fn what_takes_a_higher_level_is_denied_before_it_is_looked_at() {
        let words = ["set", "server", "nonsense"].map(str::to_owned);
        assert_eq!(read(&words, Level::User), Err(Refusal::Denied));
        assert_eq!(read(&words, Level::Operator), Err(Refusal::Denied));
        let words = ["show", "env"].map(str::to_owned);
        assert_eq!(read(&words, Level::User), Err(Refusal::Denied));
    }

    #[test]
    fn rows_are_selected_as_haproxyadmin_does() {
        let Ok(Command::Show(Show::Stat(rows))) = command("show stat 4 4 -1 up") else {
            panic!("a selection");
        };
        let only = rows.only.unwrap();
        assert_eq!((only.proxy.as_str(), only.kinds, only.server), ("4", 4, -1));
        assert!(rows.hide_down && !rows.hide_maint);
        assert!(wrong("show stat json").contains("prints CSV"));
    }

    #[test]
    fn an_unknown_command_is_named_by_its_first_word() {
        assert_eq!(command("foo bar"), Err(Refusal::Unknown("foo".to_owned())));
        assert_eq!(command("show"), Err(Refusal::Unknown("show".to_owned())));
    }

    #[test]
    fn help_lists_what_the_level_allows() {
        assert!(!list(Level::User, None).contains("set server"));
        assert!(list(Level::Admin, None).contains("  set server <bk>/<srv> [opts]"));
        let about_get = list(Level::User, Some("get"));
        assert_eq!(about_get.lines().count(), 1, "{about_get}");
    }

    proptest! {
        #[test]
        fn any_words_can_be_read(words in proptest::collection::vec(".*", 0..8)) {
            read(&words, Level::Admin).ok();
        }

        #[test]
        fn any_arguments_of_a_command_can_be_read(
            verb in proptest::sample::select(VERBS.iter().map(|verb| verb.words).collect::<Vec<_>>()),
            arguments in proptest::collection::vec("[-+0-9a-z%/é]{0,12}", 0..5),
        ) {
            let own = verb.split(' ').map(str::to_owned);
            let words: Vec<String> = own.chain(arguments).collect();
            let unknown = matches!(read(&words, Level::Admin), Err(Refusal::Unknown(_)));
            prop_assert!(!unknown);
        }
    }
}
