//! `tidings events`: what happened to servers, so far and as it happens.

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::Args;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    desk::{Desk, Followed, printable},
    out::say,
};
use crate::top::answer::Life;

/// How long to wait before a load balancer that has gone is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where to look, and how to show it.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// The load balancer.
    #[command(flatten)]
    pub desk: Desk,
    /// Go on with events as they happen, over restarts of the load balancer
    #[arg(long)]
    pub follow: bool,
    /// As JSON; with --follow an object a line
    #[arg(long)]
    pub json: bool,
}

/// Lists the events, oldest first.
pub async fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    if args.follow {
        return follow(&args).await;
    }
    let answer = args.desk.get("/v1/events").await?;
    if args.json {
        say(answer.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer: Option<Value> = serde_json::from_str(&answer).ok();
    let events = answer.as_ref().and_then(|answer| answer.get("events"));
    let events = events.and_then(Value::as_array);
    let no_list = || anyhow!("{} answers, but not with events", args.desk.stats);
    for event in events.ok_or_else(no_list)? {
        say(&line(event))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints all there are and all that come. Whoever cannot be reached at first
/// is an error; whoever could be will come back.
async fn follow(args: &EventsArgs) -> anyhow::Result<ExitCode> {
    let mut last = 0;
    let mut life = life(&args.desk).await?;
    let mut followed = args.desk.follow(last).await?;
    loop {
        while let Ok(Some(text)) = followed.next().await {
            let Ok(event) = serde_json::from_str::<Value>(&text) else {
                continue;
            };
            last = event.get("number").and_then(Value::as_u64).unwrap_or(last);
            say(&if args.json { text } else { line(&event) })?;
        }
        followed = again(&args.desk, &mut life, last).await;
    }
}

/// Goes on after event `last` once the load balancer is there again. One that
/// was started again numbers its events anew.
async fn again(desk: &Desk, life: &mut Life, last: u64) -> Followed {
    loop {
        sleep(AGAIN).await;
        let Ok(now) = self::life(desk).await else {
            continue;
        };
        let after = if now == *life { last } else { 0 };
        if let Ok(followed) = desk.follow(after).await {
            *life = now;
            return followed;
        }
    }
}

async fn life(desk: &Desk) -> anyhow::Result<Life> {
    serde_json::from_str(&desk.get("/v1/balancer").await?)
        .map_err(|_| anyhow!("{} answers, but is no load balancer", desk.stats))
}

/// An event in one line: when, what, and how it was found out.
fn line(event: &Value) -> String {
    let text = |name| event.get(name).and_then(Value::as_str).unwrap_or("-");
    let mut line = format!("{}  {}", text("time"), text("text"));
    if let Some(sign) = event.get("sign").and_then(Value::as_str) {
        let took = event.get("detection_ms").and_then(Value::as_f64);
        let took = took.map(|took| format!(" in {took} ms"));
        let took = took.unwrap_or_default();
        line = format!("{line}  (by {sign}{took})");
    }
    printable(&line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line_that_cannot_steer_the_terminal() {
        let mut event = json!({ "number": 2, "time": "2026-11-22T13:41:15.823Z",
            "text": "s2 is DOWN\u{1b}[2J", "sign": "lifeline", "detection_ms": 3.2 });
        let expected = "2026-11-22T13:41:15.823Z  s2 is DOWN[2J  (by lifeline in 3.2 ms)";
        assert_eq!(line(&event), expected);
        event["sign"] = Value::Null;
        assert!(line(&event).ends_with("s2 is DOWN[2J"));
    }
}
