//! What is answered to a command, and how grave that is.

/// How grave a message is: `HAProxy` and syslog number them alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// The command failed.
    Error = 3,
    /// It did something that an operator should know of.
    Warning = 4,
    /// It had nothing to do.
    Notice = 5,
    /// What was asked for.
    Info = 6,
}

impl Grade {
    /// Syslog's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "err",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
        }
    }
}

/// What is answered to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How grave a message is; a table that was asked for has no grade.
    pub grade: Option<Grade>,
    /// The text; empty is the usual success.
    pub text: String,
}

impl Answer {
    /// Success that needs no words.
    pub fn silent() -> Self {
        Self::table("")
    }

    /// Lines for programs, which carry no grade.
    pub fn table(text: impl Into<String>) -> Self {
        let (grade, text) = (None, text.into());
        Self { grade, text }
    }

    /// A message.
    pub fn said(grade: Grade, text: impl Into<String>) -> Self {
        let (grade, text) = (Some(grade), text.into());
        Self { grade, text }
    }

    /// A message that is no surprise.
    pub fn info(text: impl Into<String>) -> Self {
        Self::said(Grade::Info, text)
    }
}

/// An answer, or why the command failed.
pub type Outcome = Result<Answer, String>;
