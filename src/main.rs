//! The command: reads the command line, runs what it asks for, and turns
//! errors into one line and an exit code.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, error::ErrorKind};
use tidings::{
    app,
    cli::{self, Cli, Command, admin, look},
    gossip,
};

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    start_logging();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        // A host name that is still being looked up shall not hold up the end.
        runtime.shutdown_background();
        ended
    });
    ended.unwrap_or_else(|err| {
        eprintln!("tidings: {err:#}");
        ExitCode::FAILURE
    })
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
                eprintln!("tidings: {}", one_line(&err.render().to_string()));
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

/// Everything but the access log goes to stderr, one line an event.
fn start_logging() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

#[expect(clippy::print_stdout, reason = "what was asked for goes to stdout")]
fn print_line(text: &str) {
    println!("{text}");
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
