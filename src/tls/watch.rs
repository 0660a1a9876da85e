//! Files that are followed while the process runs: what is in them is looked
//! at every second, beside the requests, and taken up when it has changed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use super::{Certificate, Index, files::Pair};
use crate::counters::unix_seconds;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often somebody is told of certificates that end soon.
const WARN_EVERY: Duration = Duration::from_hours(24);

/// What soon is, in seconds: the time that is left when a certificate of 90
/// days should have been renewed twice over.
const SOON: i64 = 14 * 24 * 60 * 60;

/// Certificates that a line names; it counts the others.
const NAMED: usize = 10;

/// Follows what `look` finds, for ever: takes it up now, and whenever something
/// else is found twice in a row. Whoever writes two files, or a long one, may
/// be at it while we look. What cannot be used is told once.
pub(super) async fn follow<T: PartialEq + Clone + Send + 'static>(
    what: &str,
    look: impl Fn() -> Result<T, String> + Clone + Send + 'static,
    mut take_up: impl FnMut(T) -> Result<(), String>,
) {
    let mut use_it = |found: Result<T, String>| {
        if let Err(why) = found.and_then(&mut take_up) {
            warn!("the {what} in use stay: {why}");
        }
    };
    let mut known = look();
    let mut seen = known.clone();
    use_it(known.clone());
    loop {
        sleep(LOOK_EVERY).await;
        let Ok(now) = spawn_blocking(look.clone()).await else {
            continue;
        };
        if now != seen {
            seen = now;
        } else if seen != known {
            known = seen.clone();
            use_it(known.clone());
        }
    }
}

/// All certificates that were read, by name.
pub(super) fn certificates(pairs: &[Pair]) -> Result<Index, String> {
    let certificates = pairs.iter().map(Certificate::read);
    let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
    Index::new(certificates).ok_or_else(|| "there is no certificate".to_owned())
}

/// Says which certificates are in use, and until when.
pub(super) fn say_certificates(index: &Index) {
    let one = |certificate: &Certificate| {
        let until = certificate.last_day();
        format!("{} until {until}", title(certificate))
    };
    let said: Vec<String> = index.certificates().take(NAMED).map(one).collect();
    let others = index.certificates().skip(NAMED).count();
    let others = match others {
        0 => String::new(),
        _ => format!(" and {others} more"),
    };
    info!("certificates in use: {}{others}", said.join(", "));
}

/// Warns of certificates that end soon every day, for ever.
pub(super) async fn warn_daily(index: impl Fn() -> Arc<Index>) {
    loop {
        sleep(WARN_EVERY).await;
        warn_of_ends(&index());
    }
}

/// Warns of certificates that do not hold, or not for long.
pub(super) fn warn_of_ends(index: &Index) {
    for warning in warnings(index, unix_seconds()) {
        warn!("{warning}");
    }
}

/// A line for each certificate that does not hold, or not for long.
fn warnings(index: &Index, now: i64) -> Vec<String> {
    let one = |certificate: &Certificate| {
        let title = title(certificate);
        let file = certificate.file.display();
        let day = certificate.last_day();
        if certificate.ends < now {
            Some(format!(
                "the certificate for {title} ended on {day}, and clients refuse it: renew {file}"
            ))
        } else if certificate.begins > now {
            Some(format!(
                "the certificate for {title} does not hold yet, and clients refuse it: check \
                 {file} and this machine's clock"
            ))
        } else if certificate.ends - now < SOON {
            Some(format!(
                "the certificate for {title} ends on {day}: renew {file}"
            ))
        } else {
            None
        }
    };
    index.certificates().filter_map(one).collect()
}

/// Its first name, and how many more it has.
fn title(certificate: &Certificate) -> String {
    match certificate.names.as_slice() {
        [] => certificate.file.display().to_string(),
        [name] => name.to_string(),
        [name, others @ ..] => format!("{name} (and {} more)", others.len()),
    }
}

impl Index {
    /// When certificates end, in Unix seconds, by their first name; the
    /// earliest where several share it.
    pub fn ends(&self) -> BTreeMap<&str, i64> {
        let mut ends = BTreeMap::new();
        for certificate in self.certificates() {
            let end = ends.entry(certificate.name()).or_insert(certificate.ends);
            *end = certificate.ends.min(*end);
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::tls::fixture::{Authority, DAY, NOW};

    fn index(ends: i64) -> Index {
        let issued = Authority::new().issue_until(&["a.example", "b.example"], ends);
        certificates(&[Pair::of(&issued)]).unwrap()
    }

    #[test]
    fn a_certificate_that_ends_within_a_fortnight_is_warned_of() {
        assert!(warnings(&index(NOW + 15 * DAY), NOW).is_empty());
        let soon = warnings(&index(NOW + 13 * DAY), NOW);
        assert_eq!(
            soon,
            ["the certificate for a.example (and 1 more) ends on 2026-12-01: renew site.pem"]
        );
        let [ended] = warnings(&index(NOW - DAY), NOW).try_into().unwrap();
        assert!(ended.contains("ended on 2026-11-17"), "{ended}");
    }

    #[test]
    fn the_earliest_end_counts_where_certificates_share_a_name() {
        let ca = Authority::new();
        let pairs =
            [2, 1, 3].map(|days| Pair::of(&ca.issue_until(&["a.example"], NOW + days * DAY)));
        let index = certificates(&pairs).unwrap();
        assert_eq!(index.ends(), BTreeMap::from([("a.example", NOW + DAY)]));
    }

    /// What is taken up when looks find these, one a second, and the last for
    /// ever.
    async fn taken_up(found: &[Result<u32, &str>]) -> Vec<u32> {
        let found: Vec<_> = found
            .iter()
            .map(|found| found.map_err(str::to_owned))
            .collect();
        let seconds = u64::try_from(found.len()).unwrap() + 2;
        let looks = Arc::new(Mutex::new((0, found)));
        let look = move || {
            let (at, found) = &mut *looks.lock().unwrap();
            let now = found[*at].clone();
            *at = (*at + 1).min(found.len() - 1);
            now
        };
        let taken = Mutex::new(Vec::new());
        let following = follow("things", look, |now| {
            taken.lock().unwrap().push(now);
            Ok(())
        });
        let time = Duration::from_secs(seconds);
        tokio::time::timeout(time, following).await.unwrap_err();
        taken.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_changed_is_taken_up_once_it_holds_still() {
        assert_eq!(taken_up(&[Ok(1)]).await, [1]);
        assert_eq!(taken_up(&[Ok(1), Ok(2)]).await, [1, 2]);
        assert_eq!(taken_up(&[Ok(1), Ok(2), Ok(3)]).await, [1, 3]);
        assert_eq!(taken_up(&[Ok(1), Ok(2), Ok(2), Ok(1)]).await, [1, 2, 1]);
        assert_eq!(taken_up(&[Ok(1), Ok(2), Ok(1)]).await, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_goes_and_comes_back_is_taken_up_again() {
        let found = [Ok(1), Err("gone"), Err("gone"), Ok(1)];
        assert_eq!(taken_up(&found).await, [1, 1]);
        assert_eq!(taken_up(&[Ok(1), Err("gone"), Ok(1)]).await, [1]);
    }
}
