//! Flags about how much is let in.

use std::{num::NonZeroU32, str::FromStr, sync::Arc};

use clap::Args;

use crate::{
    cidr::Cidr,
    counters::Totals,
    proxy::{Admission, Limits, Places, Rate, RateLimit},
};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Client connections at a time; more wait until one closes [default: half
    /// of the file limit, less what the process needs itself]
    #[arg(long, value_name = "N", env = "TIDINGS_MAXCONN")]
    #[arg(value_parser = limit, allow_negative_numbers = true)]
    pub(super) maxconn: Option<NonZeroU32>,
    /// Client connections at a time of one source, an IPv4 address or an IPv6
    /// /64; more are closed [default: any number]
    #[arg(long, value_name = "N", env = "TIDINGS_MAXCONN_PER_SOURCE")]
    #[arg(value_parser = limit, allow_negative_numbers = true)]
    pub(super) maxconn_per_source: Option<NonZeroU32>,
    /// Requests a second of one source, and how many at once [default BURST: N];
    /// more get 429 [default: any number]
    #[arg(long, value_name = "N[:BURST]", env = "TIDINGS_RATE_LIMIT")]
    pub(super) rate_limit: Option<Rate>,
    /// Requests at a time that a server takes if it says nothing else; more wait
    /// [default: any number]
    #[arg(long, value_name = "N", env = "TIDINGS_SERVER_MAXCONN")]
    #[arg(value_parser = limit, allow_negative_numbers = true)]
    pub(super) server_maxconn: Option<NonZeroU32>,
    /// Requests that wait in each queue, a server's own for its users and one
    /// for everyone else, at the most; more get 503
    #[arg(
        long,
        value_name = "N",
        default_value = "1024",
        env = "TIDINGS_MAXQUEUE"
    )]
    pub(super) maxqueue: u32,
}

impl LimitArgs {
    /// The limits, where the descriptors suffice for `most` connections to
    /// clients and servers together; an error says that more are wanted. By
    /// default each client can have one to a server; whoever says a number may
    /// know that most of his clients are idle.
    pub(super) fn limits(
        &self,
        most: Option<u32>,
        proxies: Vec<Cidr>,
        totals: Arc<Totals>,
    ) -> Result<Limits, String> {
        if let (Some(wanted), Some(most)) = (self.maxconn, most)
            && wanted.get() > most
        {
            return Err(format!(
                "--maxconn {wanted}: the file limit suffices for {most} connections, those to \
                 servers among them; raise it (ulimit -n) or give a lower number"
            ));
        }
        let half = most.and_then(|most| NonZeroU32::new(most / 2));
        let (maxconn, maxconn_per_source) = (self.maxconn.or(half), self.maxconn_per_source);
        let rate = self.rate_limit.map(RateLimit::new);
        let admission = Admission::new(most, maxconn, maxconn_per_source, totals);
        Ok(Limits {
            admission: Arc::new(admission.but_for(proxies)),
            rate: rate.map(Arc::new),
            places: Places::new(self.maxqueue),
        })
    }
}

fn limit(text: &str) -> Result<NonZeroU32, &'static str> {
    let expected = "expected a number of 1 or more; leave the flag out for its default";
    text.parse().map_err(|_| expected)
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = |text: &str| {
            text.parse::<NonZeroU32>()
                .ok()
                .filter(|count| count.get() <= 1_000_000)
                .ok_or("expected requests a second and perhaps a burst, such as 20 or 20:100")
        };
        let (rate, burst) = text.split_once(':').unwrap_or((text, text));
        Ok(Self {
            per_second: count(rate)?,
            burst: count(burst)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_burst_of_a_second_or_its_own() {
        let rate = |text: &str| {
            text.parse::<Rate>()
                .map(|r| (r.per_second.get(), r.burst.get()))
        };
        assert_eq!(rate("20"), Ok((20, 20)));
        assert_eq!(rate("20:100"), Ok((20, 100)));
        for wrong in ["", "0", "20:", "20:0", "-1", "1.5", "20/s", "2000000"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn more_connections_than_descriptors_are_refused_with_a_word() {
        let args = LimitArgs {
            maxconn: NonZeroU32::new(500),
            maxconn_per_source: None,
            rate_limit: None,
            server_maxconn: None,
            maxqueue: 10,
        };
        let refused = args
            .limits(Some(480), Vec::new(), Arc::default())
            .unwrap_err();
        assert!(refused.contains("suffices for 480"), "{refused}");
        assert!(args.limits(Some(500), Vec::new(), Arc::default()).is_ok());
        assert!(args.limits(None, Vec::new(), Arc::default()).is_ok());
    }
}
