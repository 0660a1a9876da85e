//! Reads the words that follow a command's own. Pure.

use std::time::Duration;

use super::{
    answer::Answer,
    command::{
        Clear, Command, Format, Listing, Mode, Prompt, Rows, Scope, Selection, Sessions, Severity,
        Show, Target,
    },
    number::{atoi, leading_number, time},
};
use crate::stats::view::FRONTEND;

/// What a number is that is too small, too large or none.
pub(super) const OUT_OF_RANGE: &str = "Value out of range.";

/// The words behind a command's own.
pub(super) struct Arguments<'a> {
    words: &'a [String],
    has_payload: bool,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(words: &'a [String], has_payload: bool) -> Self {
        Self { words, has_payload }
    }

    /// One of them; empty where there is none, as `HAProxy` reads it.
    pub(super) fn get(&self, index: usize) -> &'a str {
        self.words.get(index).map_or("", String::as_str)
    }

    pub(super) fn optional(&self, index: usize) -> Option<String> {
        self.words.get(index).cloned()
    }

    /// Those from `index` on.
    pub(super) fn rest(&self, index: usize) -> &'a [String] {
        self.words.get(index..).unwrap_or_default()
    }

    /// A server, from `index` on.
    fn target_at(&self, index: usize) -> Result<Target, String> {
        Self::new(self.rest(index), false).target()
    }

    /// Whether lines followed the command.
    pub(super) fn has_payload(&self) -> bool {
        self.has_payload
    }

    /// The first, as a server.
    pub(super) fn target(&self) -> Result<Target, String> {
        match self.get(0).split_once('/') {
            Some((backend, server)) => Ok(Target {
                backend: backend.to_owned(),
                server: server.to_owned(),
            }),
            None => Err("Require 'backend/server'.".to_owned()),
        }
    }
}

pub(super) fn help(args: &Arguments<'_>) -> Command {
    Command::Help(args.words.to_vec())
}

pub(super) fn set_maxconn_frontend(args: &Arguments<'_>) -> Result<Command, String> {
    frontend(args)?;
    if args.get(1).is_empty() {
        return Err("Integer value expected.".to_owned());
    }
    connections(args.get(1)).map(|most| Command::Maxconn(Scope::Frontend, most))
}

fn connections(text: &str) -> Result<u32, String> {
    let number = leading_number(text).filter(|(_, rest)| rest.is_empty());
    let number = number.and_then(|(number, _)| u32::try_from(number).ok());
    number.ok_or_else(|| OUT_OF_RANGE.to_owned())
}

pub(super) fn set_maxconn_global(args: &Arguments<'_>) -> Result<Command, String> {
    if args.get(0).is_empty() {
        return Err("Expects an integer value.".to_owned());
    }
    connections(args.get(0)).map(|most| Command::Maxconn(Scope::Process, most))
}

/// No rate is limited: 0, which is `HAProxy`'s word for that, is as it is.
pub(super) fn set_rate_limit(args: &Arguments<'_>) -> Result<Command, String> {
    const USAGE: &str = "'set rate-limit' only supports :\n   \
        - 'connections global' to set the per-process maximum connection rate\n   \
        - 'sessions global' to set the per-process maximum session rate\n   \
        - 'ssl-sessions global' to set the per-process maximum SSL session rate\n   \
        - 'http-compression global' to set the per-process maximum compression speed in kB/s";
    let known = [
        "connections",
        "sessions",
        "ssl-sessions",
        "http-compression",
    ];
    let why = match (args.get(0), args.get(1), args.get(2)) {
        (what, "global", "") if known.contains(&what) => "Expects an integer value.",
        (what, "global", value) if known.contains(&what) => match leading_number(value) {
            Some((0, "")) => return Ok(Command::Known(Answer::silent())),
            Some((1.., "")) => "Rates are not limited here, and cannot be.",
            _ => OUT_OF_RANGE,
        },
        _ => USAGE,
    };
    Err(why.to_owned())
}

/// The longest that a session may be silent. `HAProxy` takes any time; a shell
/// that is left open comes back with a key.
const LONGEST_IDLE: Duration = Duration::from_hours(1);

pub(super) fn set_timeout(args: &Arguments<'_>) -> Result<Command, String> {
    match (args.get(0), args.get(1)) {
        ("cli", "") => Err("Expects an integer value.".to_owned()),
        ("cli", text) => match time(text, Duration::from_secs(1)) {
            Some(idle) if idle <= LONGEST_IDLE => Ok(Command::Timeout(idle)),
            Some(_) => Err("Timeout too long: 1h is the most.".to_owned()),
            None => Err("Invalid timeout value.".to_owned()),
        },
        _ => Err("'set timeout' only supports 'cli'.".to_owned()),
    }
}

pub(super) fn wait(args: &Arguments<'_>) -> Result<Command, String> {
    const USAGE: &str = "Usage: wait {-h|<delay>} [srv-removable <backend>/<server>]: waits for \
                         so long (us, ms, s, m, h, d; ms by default), or until the server can be \
                         deleted.";
    if args.get(0) == "-h" {
        return Ok(Command::Known(Answer::info(USAGE)));
    }
    let delay = time(args.get(0), Duration::from_millis(1)).ok_or(USAGE)?;
    let server = match args.get(1) {
        "" => None,
        "srv-removable" => Some(args.target_at(2)?),
        _ => return Err(USAGE.to_owned()),
    };
    Ok(Command::Wait(delay, server))
}

pub(super) fn clear_counters_of(args: &Arguments<'_>) -> Result<Command, String> {
    Ok(Command::Clear(Clear::Server(args.target()?)))
}

pub(super) fn shutdown_session(args: &Arguments<'_>) -> Result<Command, String> {
    let id = session_id(args.get(0)).filter(|id| *id > 0);
    id.map(Command::EndSession)
        .ok_or_else(|| "Session pointer expected (use 'show sess').".to_owned())
}

pub(super) fn shutdown_sessions(args: &Arguments<'_>) -> Result<Command, String> {
    Ok(Command::EndSessions(args.target()?))
}

/// A session as `show sess` names it.
fn session_id(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Checks that the frontend is the one there is.
fn frontend(args: &Arguments<'_>) -> Result<(), String> {
    match args.get(0) {
        "" => Err("A frontend name is expected.".to_owned()),
        FRONTEND => Ok(()),
        _ => Err("No such frontend.".to_owned()),
    }
}

pub(super) fn set_frontend(args: &Arguments<'_>, accepts: bool) -> Result<Command, String> {
    frontend(args)?;
    Ok(Command::Frontend(accepts))
}

pub(super) fn show_info(args: &Arguments<'_>) -> Command {
    Command::Show(Show::Info(format(args.words)))
}

pub(super) fn show_stat(args: &Arguments<'_>) -> Command {
    let is_flag = |word: &str| ["typed", "json", "desc", "up", "no-maint"].contains(&word);
    let (only, flags) = match args.words {
        [proxy, kinds, server, flags @ ..] if !is_flag(proxy) => {
            let selection = Selection {
                proxy: proxy.clone(),
                kinds: atoi(kinds),
                server: atoi(server),
            };
            (Some(selection), flags)
        }
        flags => (None, flags),
    };
    let has = |flag: &str| flags.iter().any(|word| word == flag);
    Command::Show(Show::Stat(Rows {
        only,
        hide_down: has("up"),
        hide_maint: has("no-maint"),
        format: format(flags),
    }))
}

/// The format that words ask for; `HAProxy` ignores all other words.
fn format(words: &[String]) -> Format {
    let has = |word: &str| words.iter().any(|given| given == word);
    let listing = match () {
        () if has("json") => Listing::Json,
        () if has("typed") => Listing::Typed,
        () => Listing::Plain,
    };
    Format {
        listing,
        described: has("desc"),
    }
}

pub(super) fn show_sess(args: &Arguments<'_>) -> Result<Command, String> {
    let which = match args.get(0) {
        "older" => {
            let age = time(args.get(1), Duration::from_secs(1));
            Sessions::Older(age.ok_or("Invalid 'older' delay.")?)
        }
        "server" => Sessions::Of(args.target_at(1)?),
        text if text.starts_with("0x") => Sessions::Id(session_id(text).unwrap_or(0)),
        _ => Sessions::All,
    };
    Ok(Command::Show(Show::Sessions(which)))
}

pub(super) fn mode(args: &Arguments<'_>, mode: Mode) -> Command {
    let wanted = args.optional(0).map(|word| word == "on");
    Command::Mode(mode, wanted)
}

pub(super) fn prompt(args: &Arguments<'_>) -> Result<Command, String> {
    const USAGE: &str = "Usage: prompt [help | n | i | p | timed]*\n\
                         Changes the prompt and the interactive mode:\n  \
                         help : this text\n  \
                         n    : the connection ends with the line, no prompt\n  \
                         i    : interactive, no prompt\n  \
                         p    : interactive, with a prompt\n  \
                         timed: the prompt shows the uptime, or no longer does\n\
                         Without any option: from n or i to p, and from p to n";
    if args.words.is_empty() {
        return Ok(Command::Prompt(vec![Prompt::Toggle]));
    }
    let prompts = args.words.iter().map(|word| match word.as_str() {
        "n" => Some(Prompt::NonInteractive),
        "i" => Some(Prompt::Interactive),
        "p" => Some(Prompt::Shown),
        "timed" => Some(Prompt::Timed),
        _ => None,
    });
    match prompts.collect() {
        Some(prompts) => Ok(Command::Prompt(prompts)),
        None if ["help", "?"].contains(&args.get(0)) => Ok(Command::Known(Answer::info(USAGE))),
        None => Err(USAGE.to_owned()),
    }
}

pub(super) fn severity(args: &Arguments<'_>) -> Result<Command, String> {
    Ok(Command::Severity(match args.get(0) {
        "none" => Severity::None,
        "number" => Severity::Number,
        "string" => Severity::Text,
        _ => return Err("one of 'none', 'number', 'string' is a required argument".to_owned()),
    }))
}
