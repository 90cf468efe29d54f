//! Where a history can be struck, and how: every request and every durable write is a site, counted in the order of time.
//!
//! What is left out, because it is another strike under a second name: a crash while a reading request is under way is the crash
//! after the last durable write; a crash after a changing request was executed and before its result is durable is the cut before
//! that write; one before it was sent is the cut after its intent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;

/// What is asked of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Identity,
    List,
    Mint,
    Probe,
    LastUse,
    Disable,
    Enable,
    Delete,
    Inspect,
    Read,
    Push,
    Jobs,
    Poll,
    /// A durable write of an event of this kind.
    Write(&'static str),
    /// The reserve made before a mint.
    Reserve,
    /// The destruction of a sealed secret.
    Shred,
}

/// How a site is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strike {
    /// The request surely never left.
    NotSent,
    /// It was sent and never arrived; no answer.
    Lost,
    /// It was executed; no answer.
    ReplyLost,
    /// It was executed and answered with a 5xx.
    ServerError,
    /// It was refused.
    Refused,
    /// It was refused for now.
    Throttled,
    /// No answer; executed seconds later, after our next action.
    LateSoon,
    /// No answer; executed as late as it can be, just before its horizon.
    LateEdge,
    /// The process dies with the request on its way; it is executed as late as it can be.
    CrashLate,
    /// The process dies before the write is durable.
    CutBefore,
    /// The process dies right after the write is durable.
    CutAfter,
    /// The write fails and is not durable (disk full).
    WriteFails,
    /// The write is said to have failed and is durable all the same (an error at fsync).
    WriteFailsDurable,
}

use Strike::*;

impl Op {
    /// Every way this can be struck.
    pub fn strikes(self) -> &'static [Strike] {
        match self {
            Op::Mint | Op::Push | Op::Disable | Op::Enable | Op::Delete => {
                &[NotSent, Lost, ReplyLost, ServerError, Refused, Throttled, LateSoon, LateEdge, CrashLate]
            }
            Op::Identity | Op::List | Op::Probe | Op::LastUse | Op::Inspect | Op::Read | Op::Jobs | Op::Poll => {
                &[NotSent, Lost, Refused, Throttled]
            }
            Op::Write(_) => &[CutBefore, CutAfter, WriteFails, WriteFailsDurable],
            Op::Reserve => &[WriteFails, CutBefore],
            Op::Shred => &[WriteFails, CutBefore, CutAfter],
        }
    }
}

impl Strike {
    /// Whether the process is gone afterwards.
    pub fn kills(self) -> bool {
        matches!(self, CrashLate | CutBefore | CutAfter)
    }
}

/// A place in a history that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its number, from 0.
    pub index: usize,
    /// What was done there.
    pub op: Op,
}

/// What strikes when.
#[derive(Clone, Debug)]
pub enum Plan {
    /// These sites, in these ways.
    Fixed(BTreeMap<usize, Strike>),
    /// The nth time (from 0) that a thing is asked or written, in these ways; the same strike whatever else is asked before.
    Nth { strikes: BTreeMap<(Op, usize), Strike>, passed: BTreeMap<Op, usize> },
    /// Any site before this time, with a chance of one in `one_in`; while `victim` is set only at requests about it.
    Random { chance: Chance, one_in: u32, until: Duration, victim: Option<String> },
}

impl Plan {
    /// Nothing strikes.
    pub fn calm() -> Plan {
        Plan::Fixed(BTreeMap::new())
    }

    /// One site.
    pub fn one(index: usize, strike: Strike) -> Plan {
        Plan::Fixed(BTreeMap::from([(index, strike)]))
    }

    /// Two sites.
    pub fn two(first: (usize, Strike), second: (usize, Strike)) -> Plan {
        Plan::Fixed(BTreeMap::from([first, second]))
    }

    /// These, each the nth time it is passed.
    pub fn nth(strikes: &[(Op, usize, Strike)]) -> Plan {
        let strikes = strikes.iter().map(|(op, nth, strike)| ((*op, *nth), *strike)).collect();
        Plan::Nth { strikes, passed: BTreeMap::new() }
    }

    pub(crate) fn strikes(&mut self, site: Site, about: &str, now: Duration) -> Option<Strike> {
        match self {
            Plan::Fixed(map) => map.get(&site.index).copied(),
            Plan::Nth { strikes, passed } => {
                let passed = passed.entry(site.op).or_default();
                let strike = strikes.get(&(site.op, *passed)).copied();
                *passed += 1;
                strike
            }
            Plan::Random { chance, one_in, until, victim } => {
                if now >= *until || victim.as_ref().is_some_and(|victim| !about.contains(victim.as_str())) {
                    return None;
                }
                let strike = (chance.below(*one_in as usize) == 0).then(|| *chance.pick(site.op.strikes()))?;
                // What ends the process is everybody's trouble.
                let ends = strike.kills() || matches!(strike, WriteFails | WriteFailsDurable);
                (victim.is_none() || !ends).then_some(strike)
            }
        }
    }
}
