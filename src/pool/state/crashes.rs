//! Who crashed, and is to be kept out for it.

use tokio::time::Instant;

use super::{RECORDS_MOST, State};
use crate::{
    membership::Name,
    pool::{
        quarantine::Record,
        server::{Cause, Status},
    },
};

/// Whether a server that took traffic a moment ago ended up so by a fault of
/// its own.
pub(super) fn is_crash(status: Status) -> bool {
    matches!(
        status,
        Status::Down(Cause::Agent | Cause::Refused | Cause::Check | Cause::Silent)
    )
}

impl State {
    pub(super) fn enter_crash(&mut self, name: &Name, now: Instant) {
        let before = self.crashes.get(name).copied();
        if before.is_none() && self.crashes.len() >= RECORDS_MOST {
            return;
        }
        let record = Record::crashed(before, now);
        self.crashes.insert(name.clone(), record);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.keep_out(Some(record.out_until()));
        }
    }
}
