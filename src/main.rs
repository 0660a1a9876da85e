//! The command: reads the command line, runs what it asks for, and turns
//! errors into one line and an exit code.

use std::{
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
    gossip,
    lines::Lines,
};

/// How long the end may wait for somebody to read what was said last.
const LAST_WORDS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let log = match start_logging() {
        Ok(log) => log,
        Err(err) => {
            complain(&format!("the log's thread cannot start: {err}"));
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        // A host name that is still being looked up shall not hold up the end.
        runtime.shutdown_background();
        ended
    });
    let code = ended.unwrap_or_else(|err| {
        log.say(format!("tidings: {err:#}\n"));
        ExitCode::FAILURE
    });
    log.flush(LAST_WORDS);
    code
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => Box::pin(app::run(cli.serve)).await,
        Some(Command::Serve(args)) => Box::pin(app::run(*args)).await,
        Some(Command::Agent(args)) => Box::pin(cli::agent::run(*args)).await,
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
        .map_err(|err| match err.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                print_line(err.render().to_string().trim_end());
                ExitCode::SUCCESS
            }
            _ => {
                complain(&mistake(&err));
                ExitCode::from(2)
            }
        })
}

/// What clap says over several lines, in one, without its usage.
fn one_line(message: &str) -> String {
    let said: Vec<&str> = message
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    let said = said.join(" ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    format!("{said} (see `tidings --help`)")
}

/// A mistake in one line. What was given as a secret is not repeated: it is
/// usually one character off the real one, and this line ends up in a log.
fn mistake(err: &clap::Error) -> String {
    let flag = match err.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.as_str(),
        _ => "",
    };
    let secret = ["--gossip-key", "--stats-auth"]
        .into_iter()
        .find(|secret| flag.split(' ').next() == Some(secret));
    match (secret, std::error::Error::source(err)) {
        (Some(secret), Some(why)) => format!("{secret}: {why} (see `tidings --help`)"),
        _ => one_line(&err.render().to_string()),
    }
}

/// Everything but the access log goes to stderr, one line an event, and
/// nobody waits for it.
fn start_logging() -> io::Result<Lines> {
    let (lines, _writer) = Lines::start("log", io::stderr(), Arc::default())?;
    tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .log_internal_errors(false)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(lines)
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
            one_line(clap),
            "invalid value 'x' for '--balance <HOW>' [possible values: a, b] (see `tidings --help`)"
        );
        let clap = "error: unexpected argument '--htp' found\n\n  tip: a similar argument exists: \
                    '--http'\n\nUsage: tidings serve --http <ADDR:PORT>\n\nFor more…";
        assert_eq!(
            one_line(clap),
            "unexpected argument '--htp' found tip: a similar argument exists: '--http' \
             (see `tidings --help`)"
        );
    }
}
