//! Commands about what `HAProxy` can have and this has not: limits on
//! rates, agent checks, maps, ACLs, tables, caches, certificates, peers. They are answered
//! as by an `HAProxy` in which nothing of the kind is configured, so that a
//! script that looks for it finds nothing instead of an error; what would set
//! a limit says that there is none. Help does not list them.

use super::{
    Level,
    answer::Answer,
    arguments::{self as read, Arguments},
    command::{Command, Mode, Verb},
    server_arguments as server,
};

const NO_MAP: &str = "Unknown map identifier. Please use #<id> or <file>.";
const NO_ACL: &str = "Unknown ACL identifier. Please use #<id> or <file>.";
const NO_TABLE: &str = "No such table";
const NO_RESOLVERS: &str = "Can't find that resolvers section";

/// Every one of them.
#[rustfmt::skip]
pub(super) const VERBS: &[Verb] = &[
    admin("disable agent", |args| server::agent(args, false)),
    admin("enable agent", |args| server::agent(args, true)),
    admin("experimental-mode", |args| Ok(read::mode(args, Mode::Experimental))),
    admin("expert-mode", |args| Ok(read::mode(args, Mode::Expert))),
    admin("set rate-limit", read::set_rate_limit),
    verb("show map", |args| lists(args, "# id (file) description", NO_MAP)),
    verb("show acl", |args| lists(args, "# id (file) description", NO_ACL)),
    verb("show table", |args| lists(args, "", NO_TABLE)),
    verb("show peers", |args| lists(args, "", "No such peers")),
    verb("show resolvers", |args| lists(args, "", NO_RESOLVERS)),
    verb("show cache", |args| lists(args, "", "")),
    verb("show startup-logs", |args| lists(args, "", "")),
    verb("show tls-keys", |args| lists(args, "# id (file)", "'show tls-keys' unable to locate referenced filename")),
    verb("show ssl cert", |args| lists(args, "", "Can't display the certificate: Not found or the certificate is a bundle!")),
    verb("show ssl crt-list", |args| lists(args, "", "didn't find the specified filename")),
    verb("get map", |args| keyed(args, "Missing map identifier and/or key.", NO_MAP)),
    verb("get acl", |args| keyed(args, "Missing ACL identifier and/or key.", NO_ACL)),
    verb("get var", |args| named(args, "Expects a variable name.", "Variable not found.")),
    verb("add map", |args| keyed(args, "'add map' expects three parameters (map identifier, key and value) or one parameter (map identifier) and a payload", NO_MAP)),
    verb("add acl", |args| keyed(args, "'add acl' expects two parameters: ACL identifier and pattern.", NO_ACL)),
    verb("set map", |args| keyed(args, "'set map' expects three parameters: map identifier, key and value.", NO_MAP)),
    verb("del map", |args| keyed(args, "This command expects two parameters: map identifier and key.", NO_MAP)),
    verb("del acl", |args| keyed(args, "This command expects two parameters: ACL identifier and key.", NO_ACL)),
    verb("clear map", |args| named(args, "Missing map identifier.", NO_MAP)),
    verb("clear acl", |args| named(args, "Missing ACL identifier.", NO_ACL)),
    verb("prepare map", |args| named(args, "Missing map identifier.", NO_MAP)),
    verb("prepare acl", |args| named(args, "Missing ACL identifier.", NO_ACL)),
    verb("set table", |args| named(args, "\"key\" followed by a value expected", NO_TABLE)),
    verb("clear table", |args| named(args, "Required arguments: <table> \"data.<store_data_type>\" <operator> <value> or <table> key <key>", NO_TABLE)),
];

type Read = fn(&Arguments<'_>) -> Result<Command, String>;

const fn verb(words: &'static str, read: Read) -> Verb {
    Verb {
        words,
        arguments: "",
        about: "",
        level: Level::User,
        read,
    }
}

const fn admin(words: &'static str, read: Read) -> Verb {
    Verb {
        level: Level::Admin,
        ..verb(words, read)
    }
}

/// All that there is of it, or that the one asked for is not there.
fn lists(args: &Arguments<'_>, all: &str, none: &str) -> Result<Command, String> {
    if args.get(0).is_empty() || none.is_empty() {
        return Ok(Command::Known(Answer::table(all)));
    }
    Err(none.to_owned())
}

/// That the one named is not there.
fn named(args: &Arguments<'_>, usage: &str, none: &str) -> Result<Command, String> {
    let why = if args.get(0).is_empty() { usage } else { none };
    Err(why.to_owned())
}

/// That the one named is not there, where a key goes with the name. A payload
/// may stand for the keys.
fn keyed(args: &Arguments<'_>, usage: &str, none: &str) -> Result<Command, String> {
    let whole = !args.get(1).is_empty() || (args.has_payload() && !args.get(0).is_empty());
    let why = if whole { none } else { usage };
    Err(why.to_owned())
}
