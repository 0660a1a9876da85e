//! What subcommands print.

use std::io::{self, Write};

use anyhow::Context;

/// Nobody reads stdout any more, as after `| head`: the end, and no mistake.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads stdout any more")]
pub struct Unread;

/// Prints a text to stdout as it is. The error is [`Unread`] where its reader has gone.
pub fn write(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Err(Unread.into()),
        outcome => outcome.context("stdout"),
    }
}

/// Prints a line to stdout, as [`write()`] does.
pub fn say(line: &str) -> anyhow::Result<()> {
    write(&format!("{line}\n"))
}

/// The same where what was done counts, and not who reads of it.
pub fn say_if_read(line: &str) -> anyhow::Result<()> {
    say(line).or_else(|err| if err.is::<Unread>() { Ok(()) } else { Err(err) })
}
