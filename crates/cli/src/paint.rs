//! Colour on a terminal, plain text everywhere else (`NO_COLOR` is honoured).

use std::io::IsTerminal;

/// A line that holds words of others (a script, an agent, a log): control characters are shown and not obeyed.
pub(crate) fn plain(line: &str) -> String {
    let shown = |one: char| {
        // Marks of direction can turn the shown order of letters round.
        let turns = matches!(one, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if one.is_control() || turns { format!("\\x{:02x}", u32::from(one)) } else { one.to_string() }
    };
    line.chars().map(shown).collect()
}

/// Paints words, or leaves them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self(std::io::stdout().is_terminal() && allowed())
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self(std::io::stderr().is_terminal() && allowed())
    }

    /// For text that no terminal shows.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(false)
    }

    /// Whether colour is on.
    pub(crate) fn colour(self) -> bool {
        self.0
    }

    /// Background information.
    pub(crate) fn dim(self, text: &str) -> String {
        self.code("2", text)
    }

    /// A heading or a name.
    pub(crate) fn strong(self, text: &str) -> String {
        self.code("1", text)
    }

    /// Something is as it should be.
    pub(crate) fn good(self, text: &str) -> String {
        self.code("1;32", text)
    }

    /// Worth a look.
    pub(crate) fn warn(self, text: &str) -> String {
        self.code("1;33", text)
    }

    /// An attack or a failure.
    pub(crate) fn bad(self, text: &str) -> String {
        self.code("1;31", text)
    }

    /// Something is being done.
    pub(crate) fn act(self, text: &str) -> String {
        self.code("1;36", text)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_move_no_cursor_and_turn_no_letters() {
        assert_eq!(plain("a\u{1b}[31m\nb\u{9b}\u{202e}c ä"), "a\\x1b[31m\\x0ab\\x9b\\x202ec ä");
    }
}
