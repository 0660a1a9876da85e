//! How an action went, in `HAProxy`'s codes and words.

use maud::{Markup, html};

/// How an action went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was asked was done.
    Done,
    /// There was nothing to do.
    Nothing,
    /// Some of it was done.
    Partly,
    /// What was asked makes no sense.
    Invalid,
    /// It was too much to read.
    TooLarge,
    /// It is not allowed, or not from there.
    Denied,
    /// The request was none that can be served.
    Unsupported,
    /// It was not possible now.
    Failed,
    /// The page was asked for under a name that is not sure to be ours.
    Misnamed,
}

const ALL: [Outcome; 9] = [
    Outcome::Done,
    Outcome::Nothing,
    Outcome::Partly,
    Outcome::Invalid,
    Outcome::TooLarge,
    Outcome::Denied,
    Outcome::Unsupported,
    Outcome::Failed,
    Outcome::Misnamed,
];

impl Outcome {
    /// The outcome of that code.
    pub fn of(code: &str) -> Option<Self> {
        ALL.into_iter().find(|outcome| outcome.code() == code)
    }

    /// The code that stands in an address behind `;st=`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Done => "DONE",
            Self::Nothing => "NONE",
            Self::Partly => "PART",
            Self::Invalid => "ERRP",
            Self::TooLarge => "EXCD",
            Self::Denied => "DENY",
            Self::Unsupported => "IVAL",
            Self::Failed => "UNKN",
            Self::Misnamed => "HOST",
        }
    }

    /// What a person reads.
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "Action processed successfully.",
            Self::Nothing => "Nothing has changed.",
            Self::Partly => {
                "Action partially processed. Some server names are probably unknown or ambiguous \
                 (duplicated names in the backend)."
            }
            Self::Invalid => {
                "Action not processed because of invalid parameters. The action is maybe unknown, \
                 the backend's name is, or some server names are."
            }
            Self::TooLarge => {
                "Action not processed: the buffer couldn't store all the data. You should retry \
                 with less servers at a time."
            }
            Self::Denied => "Action denied.",
            Self::Unsupported => "Invalid requests (unsupported method).",
            Self::Failed => "Unexpected result: gossip does not take it now. Try again.",
            Self::Misnamed => {
                "Action denied: without a password the page steers only under an IP address, \
                 localhost, the node's name or one without a dot; set --stats-auth to steer it \
                 under any other."
            }
        }
    }

    /// The colour of what it says.
    pub fn class(self) -> &'static str {
        match self {
            Self::Done => "active_up",
            Self::Nothing | Self::Partly => "active_going_down",
            _ => "active_down",
        }
    }
}

/// The same for the page's script.
pub(in crate::stats) fn json(outcome: Outcome, undo: Option<u64>) -> String {
    let said = serde_json::json!({
        "code": outcome.code(),
        "words": outcome.words(),
        "class": outcome.class(),
        "undo": undo,
    });
    said.to_string()
}

/// What the page says of an action, with a way to take it back.
pub(super) fn banner(outcome: Outcome, undo: Option<u64>, link: &str) -> Markup {
    html! {
        div.banner.(outcome.class()) role="status" {
            span { (outcome.words()) }
            @if let Some(undo) = undo {
                form method="post" action=(link) {
                    button name="undo" value=(undo) { "Undo" }
                }
            }
            a.close href=(link) title="Remove this message" { "[X]" }
        }
    }
}
