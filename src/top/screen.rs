//! The terminal: taken, drawn on, and given back whatever happens.

use std::{io, thread};

use anyhow::Context;
use ratatui::{
    DefaultTerminal,
    crossterm::{
        cursor::Show,
        event, execute,
        terminal::{EnterAlternateScreen, enable_raw_mode},
    },
    layout::{Position, Rect},
};
use rustix::process::{Signal, kill_current_process_group};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Input,
    model::Model,
    view::{self, Theme},
};

/// The terminal, which is given back when this goes.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    theme: Theme,
    /// The first row of the table that is shown.
    top: usize,
}

impl Screen {
    /// Takes the terminal: its other screen, keys as they are pressed, no
    /// cursor. A panic gives it back before it says anything.
    pub(super) fn open(theme: Theme) -> anyhow::Result<Self> {
        let terminal = ratatui::try_init().context("the terminal")?;
        Ok(Self {
            terminal,
            theme,
            top: 0,
        })
    }

    pub(super) fn draw(&mut self, model: &Model) -> anyhow::Result<()> {
        let (theme, now, top) = (self.theme, Instant::now(), &mut self.top);
        let draw = |frame: &mut ratatui::Frame<'_>| {
            view::render(model, theme, now, top, frame.area(), frame.buffer_mut());
        };
        self.terminal.draw(draw).context("the terminal")?;
        Ok(())
    }

    /// Gives the terminal back and stops, as any job does on Ctrl-Z; takes it
    /// again when the shell goes on with it.
    pub(super) fn suspend(&mut self) -> anyhow::Result<()> {
        give_back()?;
        kill_current_process_group(Signal::TSTP).context("the shell")?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.terminal.hide_cursor()?;
        // It draws everything anew, and other than `clear` it does not ask the
        // terminal for an answer, which the thread that reads keys would take.
        let area = Rect::from((Position::ORIGIN, self.terminal.size()?));
        self.terminal.resize(area)?;
        Ok(())
    }

    /// Gives the terminal back, and says if that failed.
    pub(super) fn close(self) -> anyhow::Result<()> {
        drop(self);
        give_back()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Twice does no harm, and nobody is left to hear of an error.
        give_back().ok();
    }
}

/// Sends what is typed. The thread ends with the process: nothing else ends a
/// wait for a key.
pub(super) fn listen(inputs: mpsc::Sender<Input>) -> io::Result<()> {
    let wait = move || {
        loop {
            let (input, is_last) = match event::read() {
                Ok(event) => (Input::Terminal(event), false),
                Err(err) => (Input::Hangup(err), true),
            };
            if inputs.blocking_send(input).is_err() || is_last {
                return;
            }
        }
    };
    let keys = thread::Builder::new().name("keys".to_owned());
    keys.spawn(wait).map(drop)
}

fn give_back() -> anyhow::Result<()> {
    ratatui::try_restore().context("the terminal")?;
    execute!(io::stdout(), Show).context("the terminal")
}
