//! Colour on a terminal, plain text everywhere else (`NO_COLOR` is honoured).

use std::io::IsTerminal;

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
