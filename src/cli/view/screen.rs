//! The full screen: takes the terminal, draws, reads keys, and restores the terminal however the program continues.

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

/// Request of the person at the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum ScreenCommand {
    /// An unknown key was pressed, or the window was resized: draw again.
    Redraw,
    /// `q` or Escape.
    Quit,
    /// Ctrl-C, which is not a signal while the screen is taken.
    Interrupt,
}

impl Screen {
    /// Returns whether there is a terminal to take.
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

    /// Returns the request since the last call, if any; does not wait. A request that ends the command wins.
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
