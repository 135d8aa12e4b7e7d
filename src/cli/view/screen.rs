//! The full screen: taken, drawn on, asked for keys, and given back however the program goes on.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

/// The terminal in full-screen mode. Dropping it, or a panic, restores the terminal.
#[derive(Debug)]
pub(in crate::cli) struct Screen {
    terminal: DefaultTerminal,
}

/// What a person at the terminal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum ScreenCommand {
    /// Something that means nothing here, or the window has another size: draw again.
    Redraw,
    /// `q` or Escape.
    Quit,
    /// Ctrl-C, which is no signal while the screen is taken.
    Interrupt,
}

impl Screen {
    /// Whether there is a terminal to take.
    pub(in crate::cli) fn is_available() -> bool {
        io::stdout().is_terminal() && io::stdin().is_terminal()
    }

    /// Takes the terminal.
    pub(in crate::cli) fn take() -> io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init()? })
    }

    /// Draws one frame.
    pub(in crate::cli) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(render).map(drop)
    }

    /// What was wished for since the last time, if anything; does not wait. The last word that ends it all wins.
    #[expect(clippy::unused_self, reason = "keys come in only while the screen is taken")]
    pub(in crate::cli) fn command(&self) -> io::Result<Option<ScreenCommand>> {
        let mut command = None;
        while event::poll(Duration::ZERO)? {
            let next = match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => command_of(key),
                _ => ScreenCommand::Redraw,
            };
            if next != ScreenCommand::Redraw || command.is_none() {
                command = Some(next);
            }
        }
        Ok(command)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn command_of(key: KeyEvent) -> ScreenCommand {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => ScreenCommand::Interrupt,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => ScreenCommand::Quit,
        _ => ScreenCommand::Redraw,
    }
}
