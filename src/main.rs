//! The command: reads the command line, runs what it asks for, and turns
//! errors into one line and an exit code.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{
    CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};
use tidings::{
    app,
    cli::{self, Cli, Command, admin, look},
    gossip, host,
    lines::{Lines, Text},
    syslog::{Severity, Syslog},
};
use tracing_subscriber::{
    filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// How long the end may wait for somebody to read what was said last.
const LAST_WORDS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let started = runtime.and_then(|runtime| {
        let (log, syslog) = runtime.block_on(start_logging(&cli))?;
        Ok((runtime, log, syslog))
    });
    let (runtime, log, syslog) = match started {
        Ok(started) => started,
        Err(err) => {
            complain(&format!("no thread can be started: {err}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(cli, syslog.clone()));
    // A host name that is still being looked up shall not hold up the end.
    runtime.shutdown_background();
    let code = ended.unwrap_or_else(|err| {
        if err.is::<cli::out::Unread>() {
            return ExitCode::SUCCESS;
        }
        if let Some(syslog) = &syslog {
            syslog.say(Severity::Error, format!("{err:#}"));
        }
        log.say(format!("tidings: {err:#}\n"));
        ExitCode::FAILURE
    });
    log.flush(LAST_WORDS);
    if let Some(syslog) = syslog {
        syslog.flush(LAST_WORDS);
    }
    code
}

async fn run(cli: Cli, syslog: Option<Syslog>) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => Box::pin(app::run(cli.serve, syslog)).await,
        Some(Command::Serve(args)) => Box::pin(app::run(*args, syslog)).await,
        Some(Command::Agent(args)) => Box::pin(cli::agent::run(*args, syslog)).await,
        Some(Command::Demo(args)) => Box::pin(cli::demo::run(args)).await,
        Some(Command::DemoApp(args)) => Box::pin(cli::demo::run_app(args)).await,
        Some(Command::Drain(args)) => admin::set_state(args, admin::State::Drain).await,
        Some(Command::Maint(args)) => admin::set_state(args, admin::State::Maint).await,
        Some(Command::Ready(args)) => admin::set_state(args, admin::State::Ready).await,
        Some(Command::Weight(args)) => admin::set_weight(args).await,
        Some(Command::Servers(args)) => Box::pin(look::servers(args)).await,
        Some(Command::Members(args)) => Box::pin(look::members(args)).await,
        Some(Command::Events(args)) => Box::pin(cli::events::run(args)).await,
        Some(Command::Top(args)) => Box::pin(cli::top::run(args)).await,
        Some(Command::Healthcheck(args)) => Box::pin(cli::health::run(args)).await,
        Some(Command::Keygen) => {
            print_line(&gossip::Key::generate().to_string());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads the command line. A mistake is one line that says what to do, and
/// exit code 2.
fn parse() -> Result<Cli, ExitCode> {
    let matches = Cli::command().try_get_matches();
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .and_then(Cli::checked)
        .map_err(|err| match err.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                print_line(err.render().to_string().trim_end());
                ExitCode::SUCCESS
            }
            _ => {
                let typed = std::env::args_os().nth(1);
                let help = help(typed.as_deref().and_then(OsStr::to_str));
                complain(&mistake(&err, &help));
                ExitCode::from(2)
            }
        })
}

/// What to type to read of the flags of what was typed.
fn help(typed: Option<&str>) -> String {
    let of = typed.filter(|typed| Cli::command().find_subcommand(typed).is_some());
    let of = of.map(|subcommand| format!(" {subcommand}"));
    format!("(see `tidings{} --help`)", of.unwrap_or_default())
}

/// What clap says over several lines, in one, without its usage.
fn one_line(message: &str, help: &str) -> String {
    let said: Vec<&str> = message
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    let said = said.join(" ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    format!("{said} {help}")
}

/// A mistake in one line. What was given as a secret is not repeated: it is
/// usually one character off the real one, and this line ends up in a log.
fn mistake(err: &clap::Error, help: &str) -> String {
    let flag = match err.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.as_str(),
        _ => "",
    };
    let secret = ["--gossip-key", "--stats-auth"]
        .into_iter()
        .find(|secret| flag.split(' ').next() == Some(secret));
    match (secret, std::error::Error::source(err)) {
        (Some(secret), Some(why)) => format!("{secret}: {why} {help}"),
        _ => one_line(&err.render().to_string(), help),
    }
}

/// Everything but the access log goes to stderr, one line an event, and to
/// syslog where that is asked for. Nobody waits for either.
async fn start_logging(cli: &Cli) -> io::Result<(Lines, Option<Syslog>)> {
    let (lines, _writer) = Lines::start("log", Text::to(io::stderr()), Arc::default())?;
    let syslog = match cli.syslog() {
        None => None,
        Some((target, Some(node))) => Some(Syslog::start(target.clone(), node.as_str())?),
        Some((target, None)) => {
            let node = host::name().await;
            Some(Syslog::start(target.clone(), node.as_str())?)
        }
    };
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(lines.clone())
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(to_stderr)
        .with(syslog.as_ref().map(Syslog::layer))
        .init();
    if let Some(syslog) = &syslog {
        syslog.follow()?;
    }
    Ok((lines, syslog))
}

/// To stdout, whoever reads it, or nobody.
fn print_line(text: &str) {
    writeln!(io::stdout(), "{text}").ok();
}

/// To stderr, whoever reads it, or nobody.
fn complain(what: &str) {
    writeln!(io::stderr(), "tidings: {what}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_in_one_line() {
        let clap = "error: invalid value 'x' for '--balance <HOW>'\n  [possible values: a, b]\n\n\
                    For more information, try '--help'.\n";
        assert_eq!(
            one_line(clap, &help(None)),
            "invalid value 'x' for '--balance <HOW>' [possible values: a, b] (see `tidings --help`)"
        );
        let clap = "error: unexpected argument '--htp' found\n\n  tip: a similar argument exists: \
                    '--http'\n\nUsage: tidings serve --http <ADDR:PORT>\n\nFor more…";
        assert_eq!(
            one_line(clap, &help(Some("serve"))),
            "unexpected argument '--htp' found tip: a similar argument exists: '--http' \
             (see `tidings serve --help`)"
        );
    }
}
