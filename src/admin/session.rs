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
    task::yield_now,
    time::timeout,
};

use super::{
    Controls, Level,
    answer::{Answer, Grade, Outcome},
    command::{self, Command, Mode, Prompt, Refusal, Severity, Target},
    exec,
    line::{self, MOST_WORDS, Words},
};

/// How long a client may take for a line, unless it asked for another time, or
/// for taking a portion of its answer at the most: the usual `stats timeout`.
const IDLE: Duration = Duration::from_secs(30);

/// The longest line, `HAProxy`'s buffer.
const LONGEST_LINE: usize = 16 * 1024;

/// The most that may follow a command as its payload, `HAProxy`'s 128 kB.
const LARGEST_PAYLOAD: usize = 128 * 1024;

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
    let mut session = Session::new(level, controls);
    while let Some(line) = next_line(&mut reader, session.idle).await? {
        if line.is_http() {
            break;
        }
        session.answer(line, &mut reader, &mut writer).await?;
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

impl Line {
    /// Whether it is the first line of an HTTP request: a page in a browser
    /// that can reach us wants its visitor to steer us, and would hide commands
    /// in what follows, or between semicolons.
    fn is_http(&self) -> bool {
        let Self::Whole(line) = self else {
            return false;
        };
        let last = line.split_ascii_whitespace().next_back();
        last.is_some_and(|word| word.starts_with("HTTP/"))
    }
}

/// The next line; `None` at the connection's end, or when it is idle.
async fn next_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    idle: Duration,
) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut limited = reader.take(LONGEST_LINE as u64 + 1);
    let Ok(read) = timeout(idle, limited.read_until(b'\n', &mut line)).await else {
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
    /// How long its client may be silent.
    idle: Duration,
    /// Another line may follow.
    goes_on: bool,
    prompts: bool,
    timed: bool,
    severity: Severity,
    expert: bool,
    experimental: bool,
}

impl<'a> Session<'a> {
    fn new(level: Level, controls: &'a Controls) -> Self {
        Self {
            level,
            controls,
            idle: IDLE,
            goes_on: false,
            prompts: false,
            timed: false,
            severity: Severity::None,
            expert: false,
            experimental: false,
        }
    }

    async fn answer(
        &mut self,
        line: Line,
        from: &mut (impl AsyncBufRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let Line::Whole(line) = line else {
            self.goes_on = false;
            let why = format!("Line too long: {LONGEST_LINE} bytes are the most.");
            return self.write(to, &self.framed(Err(why))).await;
        };
        let (line, end_of_payload) = line::payload(&line);
        if let Some(end) = &end_of_payload
            && !self.skip_payload(end, from, to).await?
        {
            self.goes_on = false;
            let why = format!("Payload too large: {LARGEST_PAYLOAD} bytes are the most.");
            return self.write(to, &self.framed(Err(why))).await;
        }
        let commands = line::commands(line);
        if commands.is_empty() {
            return self.write(to, &self.end_of_output()).await;
        }
        let last = commands.len() - 1;
        for (index, words) in commands.into_iter().enumerate() {
            let has_payload = end_of_payload.is_some() && index == last;
            let outcome = match self.read(words, has_payload) {
                Ok(Command::Quit) => {
                    self.goes_on = false;
                    return Ok(());
                }
                Ok(Command::Wait(time, server)) => self.wait(time, server.as_ref(), from).await?,
                Ok(command) => self.carry_out(command).await,
                Err(outcome) => outcome,
            };
            self.write(to, &self.framed(outcome)).await?;
            // A line has room for thousands of commands, and others wait.
            yield_now().await;
        }
        Ok(())
    }

    /// Reads the lines that follow a command, up to the one that ends them.
    ///
    /// They are thrown away: the commands that take a payload, maps and
    /// certificates, have nothing here to work on. Says whether they are
    /// within bounds.
    async fn skip_payload(
        &self,
        end: &str,
        from: &mut (impl AsyncBufRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<bool> {
        let mut size = 0;
        loop {
            if self.prompts {
                self.write(to, "+ ").await?;
            }
            match next_line(from, self.idle).await? {
                None => return Ok(true),
                Some(Line::TooLong) => return Ok(false),
                Some(Line::Whole(line)) if line.trim_end_matches(['\r', '\n']) == end => {
                    return Ok(true);
                }
                Some(Line::Whole(line)) => size += line.len(),
            }
            if size > LARGEST_PAYLOAD {
                return Ok(false);
            }
        }
    }

    /// Waits for what the client wants to wait for, or until it says more.
    async fn wait(
        &self,
        time: Duration,
        server: Option<&Target>,
        from: &mut (impl AsyncBufRead + Unpin),
    ) -> io::Result<Outcome> {
        tokio::select! {
            outcome = exec::wait(time, server, self.controls) => Ok(outcome),
            interrupted = interrupted(from) => {
                interrupted?;
                Ok(Err("Interrupted.".to_owned()))
            }
        }
    }

    fn read(&self, words: Words, has_payload: bool) -> Result<Command, Outcome> {
        let Some(words) = words else {
            return Err(Err(format!(
                "Too many arguments: {MOST_WORDS} words are the most."
            )));
        };
        command::read(&words, has_payload, self.level).map_err(|refusal| match refusal {
            Refusal::Denied => Err("Permission denied".to_owned()),
            Refusal::Wrong(why) => Err(why),
            // HAProxy grades this so.
            Refusal::Unknown => Ok(Answer::info(self.unknown(&words))),
        })
    }

    fn unknown(&self, words: &[String]) -> String {
        let (common, list) = command::list(self.level, words);
        let hint = if common > 0 {
            ", but maybe one of the following ones is a better match:"
        } else {
            ". Please enter one of the following commands only:"
        };
        let first = words.first().map_or("", String::as_str);
        format!("Unknown command: '{first}'{hint}\n{list}")
    }

    async fn carry_out(&mut self, command: Command) -> Outcome {
        match command {
            Command::Help(words) => {
                let (_, list) = command::list(self.level, &words);
                let title = "The following commands are valid at this level:";
                return Ok(Answer::info(format!("{title}\n{list}")));
            }
            Command::ShowLevel => return Ok(Answer::info(self.level.to_string())),
            Command::Prompt(steps) => steps.into_iter().for_each(|step| self.prompt(step)),
            Command::Severity(severity) => self.severity = severity,
            Command::Lower(level) => self.level = level,
            Command::Timeout(idle) => self.idle = idle,
            Command::Mode(mode, wanted) => return Ok(self.mode(mode, wanted)),
            other => return exec::carry_out(other, self.controls).await,
        }
        Ok(Answer::silent())
    }

    fn prompt(&mut self, step: Prompt) {
        (self.goes_on, self.prompts) = match step {
            Prompt::Toggle => (!self.prompts, !self.prompts),
            Prompt::NonInteractive => (false, false),
            Prompt::Interactive => (true, false),
            Prompt::Shown => (true, true),
            Prompt::Timed => {
                self.timed = !self.timed;
                (true, true)
            }
        };
    }

    fn mode(&mut self, mode: Mode, wanted: Option<bool>) -> Answer {
        let (name, on) = match mode {
            Mode::Expert => ("expert-mode", &mut self.expert),
            Mode::Experimental => ("experimental-mode", &mut self.experimental),
        };
        if let Some(wanted) = wanted {
            *on = wanted;
            return Answer::silent();
        }
        let state = if *on { "ON" } else { "OFF" };
        Answer::table(format!("{name} is {state}"))
    }

    /// An output as it goes over the wire.
    fn framed(&self, outcome: Outcome) -> String {
        let answer = outcome.unwrap_or_else(|why| Answer::said(Grade::Error, why));
        let mark = match (answer.grade, self.severity) {
            (None, _) | (_, Severity::None) => String::new(),
            (Some(grade), Severity::Number) => format!("[{}]: ", grade as u8),
            (Some(grade), Severity::Text) => format!("[{}]: ", grade.as_str()),
        };
        let mut text = mark + &answer.text;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text + &self.end_of_output()
    }

    fn end_of_output(&self) -> String {
        if !self.prompts {
            return "\n".to_owned();
        }
        if !self.timed {
            return "\n> ".to_owned();
        }
        let seconds = self.controls.source.process.started.elapsed().as_secs();
        let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        format!("\n[{days}:{hours:02}:{minutes:02}:{seconds:02}]> ")
    }

    async fn write(&self, to: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
        // To be silent is one thing; an answer that nobody takes is held here.
        let patience = self.idle.min(IDLE);
        for portion in text.as_bytes().chunks(PORTION) {
            timeout(patience, to.write_all(portion)).await??;
        }
        Ok(())
    }
}

/// Waits until the client says more. That it says no more is no interruption:
/// `echo … | socat` does so at once.
async fn interrupted(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    if from.fill_buf().await?.is_empty() {
        std::future::pending::<()>().await;
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
            let controls = Controls::over(fixture::source());
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
    async fn severity_stands_before_messages_and_not_before_tables() {
        let said = answer("set severity-output string;get weight s1;show cli level\n").await;
        assert_eq!(
            said,
            "\n[err]: Require 'backend/server'.\n\n[info]: admin\n\n"
        );
        let said = answer("set severity-output number;get weight s1;show backend\n").await;
        let expected = "\n[3]: Require 'backend/server'.\n\n# name\nnodes\n\n";
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn a_level_can_be_lowered_and_not_be_raised() {
        let said = answer("operator;user;operator;show cli level\n").await;
        assert_eq!(said, "\n\nPermission denied\n\nuser\n\n");
    }

    #[tokio::test]
    async fn a_payload_is_read_to_its_end_and_the_answer_comes_then() {
        let unknown = "Unknown map identifier. Please use #<id> or <file>.";
        let said = answer("prompt i;add map m <<\na b\n\nshow cli level\nquit\n").await;
        assert_eq!(said, format!("\n{unknown}\n\nadmin\n\n"));
        let said = answer("add map m <<EOF\na b\n\nc d\nEOF\n").await;
        assert_eq!(said, format!("{unknown}\n\n"));
        let said = answer("prompt\nadd map m <<\na b\n\nquit\n").await;
        assert_eq!(said, format!("\n> + + {unknown}\n\n> "));
    }

    #[tokio::test]
    async fn a_payload_has_a_bound() {
        let lines = "x".repeat(1000) + "\n";
        let said = answer(&format!("add map m <<\n{}", lines.repeat(140))).await;
        assert!(said.starts_with("Payload too large"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_prompt_can_show_the_uptime() {
        let said = answer("prompt timed\nprompt timed\nquit\n").await;
        assert_eq!(said, "\n[0:00:00:00]> \n> ");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_its_time_or_with_the_next_line() {
        let (mut ours, session) = connect();
        let start = Instant::now();
        ours.write_all(b"prompt i\nwait 2s\n").await.unwrap();
        let mut said = [0; 8];
        ours.read_exact(&mut said).await.unwrap();
        assert_eq!((&said, start.elapsed().as_secs()), (b"\nDone.\n\n", 2));
        ours.write_all(b"wait 1h\nquit\n").await.unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "Interrupted.\n\n");
        drop(ours);
        session.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_time_is_what_the_client_asked_for() {
        let (mut ours, session) = connect();
        let start = Instant::now();
        ours.write_all(b"prompt i;set timeout cli 5m\n")
            .await
            .unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 300);
        drop(ours);
        session.await.unwrap().unwrap();
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

    #[tokio::test(start_paused = true)]
    async fn a_longer_idle_time_is_none_for_an_answer() {
        let (mut ours, session) = connect();
        let start = Instant::now();
        ours.write_all(b"prompt i;set timeout cli 1h\nshow stat\n")
            .await
            .unwrap();
        let err = session.await.unwrap().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), IDLE);
    }

    #[tokio::test]
    async fn others_have_their_turn_between_the_commands_of_a_line() {
        let (mut ours, theirs) = tokio::io::duplex(1024 * 1024);
        let chain = "show cli level;".repeat(1000);
        ours.write_all(chain.as_bytes()).await.unwrap();
        ours.write_all(b"\n").await.unwrap();
        // Nothing more comes, so it ends with its last answer.
        ours.shutdown().await.unwrap();
        let controls = Controls::over(fixture::source());
        let mut turns = 0;
        tokio::select! {
            biased;
            outcome = run(theirs, Level::Admin, &controls) => outcome.unwrap(),
            () = async { loop { turns += 1; yield_now().await; } } => {}
        }
        assert!(turns >= 1000, "{turns}");
    }
}
