//! Why a command ended otherwise than well: what is said, and with which exit code.

use std::borrow::Cow;

/// How the process ends (product.md section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success,
    /// Service not found, network, refused by the hub.
    Failure,
    /// Invalid arguments.
    Usage,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Interrupted => 130,
        }
    }
}

/// The prefix of a failure's first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `[x]`
    Failed,
    /// `[!]`: nothing broke, but nothing was done either.
    Refused,
}

/// A failure as people and programs read it. No secret is ever put into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub mark: Mark,
    /// For programs, stable.
    pub code: Cow<'static, str>,
    pub message: String,
    /// What lay below, outermost first.
    pub causes: Vec<String>,
    /// The next thing to try.
    pub hint: Option<String>,
}

impl Failure {
    /// Something did not work: exit 1.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failure,
            mark: Mark::Failed,
            code: code.into(),
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }
    /// The arguments make no sense: exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new("invalid_arguments", message) }
    }
    /// Whoever read our output went away: end without a word, successfully.
    pub fn broken_pipe() -> Self {
        Self { exit: Exit::Success, ..Self::new("broken_pipe", "") }
    }
    /// Somebody stopped the command: end without a word.
    pub fn stopped(exit: Exit) -> Self {
        Self { exit, ..Self::new(Self::STOPPED, "") }
    }
    /// Whether there is nothing to say about it.
    pub fn is_silent(&self) -> bool {
        self.exit == Exit::Success || self.code == Self::STOPPED
    }
    const STOPPED: &'static str = "stopped";
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds an error and everything below it, each once.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Many libraries repeat their source in their own text.
            if !text.is_empty() && !self.causes.iter().any(|said| said.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }
}
