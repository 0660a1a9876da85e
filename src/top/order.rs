//! What an operator wants of servers, and how it is carried out.

use super::model::Message;
use crate::admin::client::{self, Steered, Target};

/// Wishes that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// One for each server.
    pub wishes: Vec<Wish>,
    /// Whether it takes back another one.
    pub is_undo: bool,
}

/// What is wanted of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its name, with its backend or without.
    pub server: String,
    /// What is wanted.
    pub change: Change,
}

/// A change of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `ready`, `drain` or `maint`.
    State(&'static str),
    /// `0` to `256`, or a percentage of what it announces.
    Weight(String),
}

impl Change {
    /// Whether the server takes no new users by it.
    pub fn takes_out(&self) -> bool {
        match self {
            Self::State(state) => *state != "ready",
            Self::Weight(weight) => weight.trim_end_matches('%').parse() == Ok(0),
        }
    }

    /// As the runtime API reads it.
    pub fn as_text(&self) -> String {
        match self {
            Self::State(state) => format!("state {state}"),
            Self::Weight(weight) => format!("weight {weight}"),
        }
    }

    /// What makes the server what it was `before`.
    fn back(&self, before: &Steered) -> Self {
        match self {
            Self::State(_) => Self::State(before.state),
            Self::Weight(_) if before.weight == before.announced_weight => {
                Self::Weight("100%".to_owned())
            }
            Self::Weight(_) => Self::Weight(before.weight.to_string()),
        }
    }
}

impl Order {
    /// In a few words, such as `drain s1, s2`.
    pub fn in_words(&self) -> String {
        let names: Vec<&str> = self
            .wishes
            .iter()
            .map(|wish| wish.server.as_str())
            .collect();
        let first = self.wishes.first().map(|wish| &wish.change);
        let is_same = self.wishes.iter().all(|wish| Some(&wish.change) == first);
        let what = match first {
            Some(Change::State(state)) if is_same => (*state).to_owned(),
            Some(Change::Weight(weight)) if is_same => format!("weight {weight}"),
            _ => "change".to_owned(),
        };
        let names = match names.as_slice() {
            [a, b, c, rest @ ..] if rest.len() > 1 => {
                format!("{a}, {b}, {c} and {} more", rest.len())
            }
            few => few.join(", "),
        };
        format!("{what} {names}")
    }
}

/// How an order went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// What to tell the operator.
    pub message: Message,
    /// What takes back as much of it as was done.
    pub undo: Vec<Wish>,
    /// What was ordered.
    pub order: Order,
}

/// Carries out an order. It ends at the first wish that fails.
pub(super) async fn carry_out(target: &Target, order: Order) -> Done {
    let mut undo = Vec::new();
    let outcome = all(target, &order, &mut undo).await;
    let words = order.in_words();
    let message = match outcome {
        Ok(()) if order.is_undo => Message::Done(format!("undone: {words}")),
        Ok(()) => Message::Done(format!("{words}   (u to undo)")),
        Err(err) => Message::Failed(format!("{err:#}")),
    };
    Done {
        message,
        undo,
        order,
    }
}

async fn all(target: &Target, order: &Order, undo: &mut Vec<Wish>) -> anyhow::Result<()> {
    let known = client::servers(target).await?;
    for Wish { server, change } in &order.wishes {
        let before = known.iter().find(|known| known.is_called(server));
        let before = before.ok_or_else(|| {
            anyhow::anyhow!("{server} is not there any more, or not at {target}: see --admin")
        })?;
        client::set(target, &before.path, &change.as_text()).await?;
        undo.push(Wish {
            server: server.clone(),
            change: change.back(before),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(state: &'static str, weight: u16) -> Steered {
        Steered {
            path: "nodes/s1".into(),
            state,
            weight,
            announced_weight: 10,
        }
    }

    #[test]
    fn what_takes_it_back_is_what_was_before() {
        let drain = Change::State("drain");
        assert_eq!(drain.back(&before("ready", 10)), Change::State("ready"));
        assert_eq!(drain.back(&before("maint", 10)), Change::State("maint"));
        let weight = Change::Weight("3".into());
        assert_eq!(weight.back(&before("ready", 5)), Change::Weight("5".into()));
        // As announced, so that it follows what is announced later.
        let announced = Change::Weight("100%".into());
        assert_eq!(weight.back(&before("ready", 10)), announced);
    }

    #[test]
    fn an_order_is_told_in_a_few_words() {
        let order = |changes: &[Change]| {
            let wish = |(change, n): (&Change, usize)| Wish {
                server: format!("s{n}"),
                change: change.clone(),
            };
            Order {
                wishes: changes.iter().zip(1..).map(wish).collect(),
                is_undo: false,
            }
        };
        let drain = Change::State("drain");
        let weight = |weight: &str| Change::Weight(weight.into());
        assert_eq!(
            order(&[drain.clone(), drain.clone()]).in_words(),
            "drain s1, s2"
        );
        let many = vec![drain; 9];
        assert_eq!(order(&many).in_words(), "drain s1, s2, s3 and 6 more");
        assert_eq!(order(&[weight("5")]).in_words(), "weight 5 s1");
        assert_eq!(
            order(&[weight("5"), weight("6")]).in_words(),
            "change s1, s2"
        );
    }
}
