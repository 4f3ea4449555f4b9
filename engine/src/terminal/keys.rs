//! What keys do: a small state machine, without a terminal.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::watch::Asked;

/// What the view looks at, and what is being typed.
#[derive(Debug, Default)]
pub(super) struct Looking {
    /// The operator that is shown in detail.
    pub(super) selected: usize,
    /// How many lines its detail is scrolled.
    pub(super) scrolled: u16,
    pub(super) help: bool,
    /// The name of a savepoint, while it is typed.
    pub(super) typed: Option<String>,
    /// What came of the last thing that was asked for.
    pub(super) message: Option<String>,
    /// Whether a savepoint can be taken from here.
    pub(super) saves: bool,
}

/// The longest name of a savepoint that can be typed.
const LONGEST_NAME: usize = 60;

impl Looking {
    /// Takes a key; `operators` is how many there are.
    pub(super) fn key(&mut self, key: KeyEvent, operators: usize) -> Option<Asked> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Some(Asked::Interrupt);
        }
        // It was read; and below it there may be what matters now.
        self.message = None;
        if self.typed.is_some() {
            return self.typing(key.code);
        }
        match key.code {
            _ if self.help => self.help = false,
            KeyCode::Char('?') => self.help = true,
            KeyCode::Char('q') | KeyCode::Esc => return Some(Asked::Quit),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select((self.selected + 1).min(operators.saturating_sub(1))),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(operators.saturating_sub(1)),
            KeyCode::PageDown | KeyCode::Right => self.scrolled = self.scrolled.saturating_add(1),
            KeyCode::PageUp | KeyCode::Left => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::Char('s') if self.saves => self.typed = Some(String::new()),
            KeyCode::Char('s') => {
                self.message = Some("no savepoints from here: give a token with --token-file, or WINDROW_TOKEN".into());
            }
            _ => {}
        }
        None
    }

    fn select(&mut self, operator: usize) {
        (self.selected, self.scrolled) = (operator, 0);
    }

    fn typing(&mut self, code: KeyCode) -> Option<Asked> {
        let typed = self.typed.as_mut()?;
        match code {
            KeyCode::Esc => self.typed = None,
            KeyCode::Backspace => drop(typed.pop()),
            KeyCode::Char(c) if typed.chars().count() < LONGEST_NAME => typed.push(c),
            KeyCode::Enter => {
                let name = self.typed.take().filter(|name| !name.is_empty())?;
                self.message = Some(format!("taking savepoint {name:?} …"));
                return Some(Asked::Savepoint(name));
            }
            _ => {}
        }
        None
    }
}
