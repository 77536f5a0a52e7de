//! The one script: run by its hash, and by its text where Redis has forgotten it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use super::link::Link;
use super::units::Units;

const TEXT: &str = include_str!("gcra.lua");

static HASH: LazyLock<String> = LazyLock::new(|| ::redis::Script::new(TEXT).get_hash().to_owned());

/// Figures that the script answers for each key.
const FIGURES: usize = 4;

/// What one limit is asked.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// The whole name of the key in Redis.
    pub(super) key: String,
    pub(super) units: Units,
    /// Requests.
    pub(super) cost: u32,
    /// What they cost in the units of `units`; zero only looks, below zero gives back.
    pub(super) price: i128,
    /// Refuses nothing.
    pub(super) shadow: bool,
}

/// What one limit answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) limited: bool,
    /// Requests that fit at once.
    pub(super) remaining: u64,
    /// Until what was asked for fits; zero when it does.
    pub(super) wait: Duration,
    /// Until nothing is owed.
    pub(super) reset: Duration,
}

/// Asks about all of them in one step: unless one of them refuses, all are charged.
///
/// What is charged may be charged twice, if the connection breaks before the answer: to the safe
/// side. What is given back is so at most once, and lost then.
pub(super) async fn run(link: &Arc<Link>, asks: &[Ask]) -> Result<Vec<Answer>, RedisError> {
    let once = asks.iter().any(|ask| ask.price < 0);
    let known = put(link, &command("EVALSHA", &HASH, asks), once).await;
    let figures = match known {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            put(link, &command("EVAL", TEXT, asks), once).await?
        }
        known => known?,
    };
    let answers: Option<Vec<_>> = figures.chunks(FIGURES).map(answer).collect();
    answers.filter(|answers| answers.len() == asks.len()).ok_or_else(|| {
        (ErrorKind::UnexpectedReturnType, "the script answered something else").into()
    })
}

async fn put(link: &Arc<Link>, question: &Cmd, once: bool) -> Result<Vec<i64>, RedisError> {
    if once { link.ask_once(question).await } else { link.ask(question).await }
}

fn command(name: &str, script: &str, asks: &[Ask]) -> Cmd {
    let mut command = ::redis::cmd(name);
    command.arg(script).arg(asks.len());
    for ask in asks {
        command.arg(&ask.key);
    }
    for Ask { units: Units { drain, unit, capacity }, price, shadow, .. } in asks {
        command.arg(drain).arg(unit).arg(capacity).arg(*price).arg(u8::from(*shadow));
    }
    command
}

fn answer(figures: &[i64]) -> Option<Answer> {
    let &[limited, remaining, wait, reset] = figures else { return None };
    let number = |figure: i64| u64::try_from(figure).ok();
    Some(Answer {
        limited: limited != 0,
        remaining: number(remaining)?,
        wait: Duration::from_micros(number(wait)?),
        reset: Duration::from_micros(number(reset)?),
    })
}

#[cfg(test)]
mod tests;
