//! One connection: reads lines, answers commands, ends when it should.
//!
//! Without a prompt it is one line, and the connection closes after its last
//! command; each command's output ends with one empty line, by which clients
//! tell the outputs of a chain apart.

use std::{io, pin::pin, time::Duration};

use tokio::{
    io::{
        AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
        BufReader,
    },
    time::timeout,
};

use super::{
    Controls, Level,
    command::{self, Command, Prompt, Refusal, Severity},
    exec,
    line::{self, MOST_WORDS, Words},
};

/// How long a client may take for a line, or for taking some of its answer:
/// the usual `stats timeout`.
const IDLE: Duration = Duration::from_secs(30);

/// The longest line, `HAProxy`'s buffer.
const LONGEST_LINE: usize = 16 * 1024;

/// What is written at a time; a client that takes that much is not idle.
const PORTION: usize = 64 * 1024;

/// How long what a client has sent too much is read, and how much of it: a
/// connection closed with unread bytes would be reset, and the answer lost.
const LINGER: Duration = Duration::from_secs(1);
const LEFTOVERS: u64 = 64 * 1024;

/// Serves a connection until its end.
pub async fn run(
    stream: impl AsyncRead + AsyncWrite,
    level: Level,
    controls: &Controls,
) -> io::Result<()> {
    let mut stream = pin!(stream);
    let (reader, mut writer) = tokio::io::split(stream.as_mut());
    let mut reader = BufReader::new(reader);
    let mut session = Session {
        level,
        controls,
        goes_on: false,
        prompts: false,
        severity: Severity::None,
    };
    while let Some(line) = next_line(&mut reader).await? {
        session.answer(&line, &mut writer).await?;
        if !session.goes_on {
            break;
        }
    }
    writer.shutdown().await?;
    let mut leftovers = reader.take(LEFTOVERS);
    let mut nowhere = tokio::io::sink();
    let drained = tokio::io::copy(&mut leftovers, &mut nowhere);
    timeout(LINGER, drained).await.ok();
    Ok(())
}

/// What came in.
enum Line {
    Whole(String),
    TooLong,
}

/// The next line; `None` at the connection's end, or when it is idle.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut bounded = reader.take(LONGEST_LINE as u64 + 1);
    let Ok(read) = timeout(IDLE, bounded.read_until(b'\n', &mut line)).await else {
        return Ok(None);
    };
    Ok(match read? {
        0 => None,
        read if read > LONGEST_LINE => Some(Line::TooLong),
        _ => Some(Line::Whole(String::from_utf8_lossy(&line).into_owned())),
    })
}

/// What a connection has agreed on.
struct Session<'a> {
    level: Level,
    controls: &'a Controls,
    /// Another line may follow.
    goes_on: bool,
    prompts: bool,
    severity: Severity,
}

impl Session<'_> {
    async fn answer(&mut self, line: &Line, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let Line::Whole(line) = line else {
            self.goes_on = false;
            let why = format!("Line too long: {LONGEST_LINE} bytes are the most.");
            return write(to, &self.framed(Err(why))).await;
        };
        let commands = line::commands(line);
        if commands.is_empty() {
            return write(to, self.end_of_output()).await;
        }
        for words in commands {
            let command = match self.read(words) {
                Ok(Command::Quit) => {
                    self.goes_on = false;
                    return Ok(());
                }
                Ok(command) => self.carry_out(command).await,
                Err(why) => Err(why),
            };
            write(to, &self.framed(command)).await?;
        }
        Ok(())
    }

    fn read(&self, words: Words) -> Result<Command, String> {
        let Some(words) = words else {
            return Err(format!(
                "Too many arguments: {MOST_WORDS} words are the most."
            ));
        };
        command::read(&words, self.level).map_err(|refusal| match refusal {
            Refusal::Denied => "Permission denied".to_owned(),
            Refusal::Wrong(why) => why,
            Refusal::Unknown(word) => self.unknown(&word),
        })
    }

    fn unknown(&self, word: &str) -> String {
        let hint = if command::is_known(self.level, word) {
            ", but maybe one of the following ones is a better match:"
        } else {
            ". Please enter one of the following commands only:"
        };
        let list = command::list(self.level, Some(word));
        format!("Unknown command: '{word}'{hint}\n{list}")
    }

    async fn carry_out(&mut self, command: Command) -> Result<String, String> {
        match command {
            Command::Help(word) => {
                let list = command::list(self.level, word.as_deref());
                return Ok(format!(
                    "The following commands are valid at this level:\n{list}"
                ));
            }
            Command::ShowLevel => return Ok(self.level.to_string()),
            Command::Prompt(prompt) => self.prompt(prompt),
            Command::Severity(severity) => self.severity = severity,
            Command::Quit => self.goes_on = false,
            Command::Show(what) => return exec::show(&what, &self.controls.source),
            Command::GetWeight(target) => return exec::weight(&target, &self.controls.source),
            Command::Set(target, change) => {
                exec::set(&target, change, self.controls).await?;
            }
        }
        Ok(String::new())
    }

    fn prompt(&mut self, prompt: Prompt) {
        (self.goes_on, self.prompts) = match prompt {
            Prompt::Toggle => (!self.prompts, !self.prompts),
            Prompt::NonInteractive => (false, false),
            Prompt::Interactive => (true, false),
            Prompt::Shown => (true, true),
        };
    }

    /// An output as it goes over the wire.
    fn framed(&self, output: Result<String, String>) -> String {
        let mut text = match output {
            Ok(text) => text,
            Err(why) => format!("{}{why}", self.mark_of_errors()),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(self.end_of_output());
        text
    }

    fn mark_of_errors(&self) -> &'static str {
        match self.severity {
            Severity::None => "",
            Severity::Number => "[3]: ",
            Severity::Text => "[err]: ",
        }
    }

    fn end_of_output(&self) -> &'static str {
        if self.prompts { "\n> " } else { "\n" }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    for portion in text.as_bytes().chunks(PORTION) {
        timeout(IDLE, to.write_all(portion)).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::{io::DuplexStream, task::JoinHandle, time::Instant};

    use super::*;
    use crate::stats::fixture;

    /// Our end of a connection, and the session at the other.
    fn connect() -> (DuplexStream, JoinHandle<io::Result<()>>) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let session = tokio::spawn(async move {
            let controls = Controls {
                source: fixture::source(),
                declare: Box::new(|_, _, _| Ok(())),
            };
            run(theirs, Level::Admin, &controls).await
        });
        (ours, session)
    }

    /// All that is answered to `sent` until the connection ends.
    async fn answer(sent: &str) -> String {
        let (mut ours, session) = connect();
        ours.write_all(sent.as_bytes()).await.unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).await.unwrap();
        drop(ours);
        session.await.unwrap().unwrap();
        said
    }

    #[tokio::test]
    async fn a_line_needs_no_end_where_the_connection_has_one() {
        let (mut ours, session) = connect();
        ours.write_all(b"show cli level").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "admin\n\n");
        session.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_conversation_has_a_prompt_or_none() {
        let shown = "prompt\nshow cli level;show backend\nprompt\n";
        let expected = "\n> admin\n\n> # name\nnodes\n\n> \n";
        assert_eq!(answer(shown).await, expected);
        let without = "prompt i\nshow cli level\nquit\n";
        assert_eq!(answer(without).await, "\nadmin\n\n");
    }

    #[tokio::test]
    async fn what_follows_quit_is_not_carried_out() {
        assert_eq!(
            answer("show cli level;quit;show backend\n").await,
            "admin\n\n"
        );
    }

    #[tokio::test]
    async fn too_many_words_are_refused() {
        let said = answer(&format!("help{}\n", " x".repeat(64))).await;
        assert_eq!(said, "Too many arguments: 64 words are the most.\n\n");
    }

    #[tokio::test]
    async fn severity_stands_before_what_went_wrong() {
        let said = answer("set severity-output string;get weight s1;show cli level\n").await;
        assert_eq!(said, "\n[err]: Require 'backend/server'.\n\nadmin\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_is_let_go() {
        let (mut ours, session) = connect();
        let start = Instant::now();
        ours.write_all(b"prompt\nshow").await.unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).await.unwrap();
        assert_eq!((said.as_str(), start.elapsed()), ("\n> ", IDLE));
        drop(ours);
        session.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_take_its_answer_is_let_go() {
        let (mut ours, session) = connect();
        ours.write_all(b"show stat\n").await.unwrap();
        let err = session.await.unwrap().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::TimedOut);
    }
}
