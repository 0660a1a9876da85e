//! Flags: `--name value`, and nothing else. Whoever starts these programs is
//! a script that knows them.

use std::{fmt::Display, str::FromStr};

/// The value of a flag, if it is given.
pub fn optional<T: FromStr<Err: Display>>(flag: &str) -> Option<T> {
    let value = std::env::args().skip_while(|arg| arg != flag).nth(1)?;
    match value.parse() {
        Ok(value) => Some(value),
        Err(error) => panic!("{flag} {value}: {error}"),
    }
}

/// The value of a flag that must be given.
pub fn required<T: FromStr<Err: Display>>(flag: &str) -> T {
    optional(flag).unwrap_or_else(|| panic!("{flag} is missing"))
}
