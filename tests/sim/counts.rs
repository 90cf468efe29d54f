//! What was done, and what was found: counted, and each kind of violation once with a plan that shows it.

use std::collections::BTreeMap;

use crate::faults::Plan;
use crate::oracle::Promise;
use crate::random;
use crate::run::{History, play};
use crate::scene::{Plant, Scene};

/// How much was tried.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub histories: u64,
    pub strikes: u64,
    pub requests: u64,
    pub writes: u64,
    pub crashes: u64,
    pub typed: u64,
    pub checks: [u64; 8],
}

impl Counts {
    pub fn add(&mut self, history: &History) {
        self.histories += 1;
        self.strikes += history.tally.strikes;
        self.requests += history.tally.requests;
        self.writes += history.tally.writes;
        self.crashes += history.tally.crashes;
        self.typed += u64::from(history.typed);
        for (sum, more) in self.checks.iter_mut().zip(history.checks) {
            *sum += more;
        }
    }

    pub fn join(&mut self, other: &Counts) {
        self.histories += other.histories;
        self.strikes += other.strikes;
        self.requests += other.requests;
        self.writes += other.writes;
        self.crashes += other.crashes;
        self.typed += other.typed;
        for (sum, more) in self.checks.iter_mut().zip(other.checks) {
            *sum += more;
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} histories, {} strikes, {} crashes, {} requests, {} durable writes, {} orders typed; checks:",
            self.histories, self.strikes, self.crashes, self.requests, self.writes, self.typed
        )?;
        for (promise, checks) in Promise::ALL.iter().zip(self.checks) {
            write!(f, " {promise:?} {checks}")?;
        }
        Ok(())
    }
}

/// How to play a history again.
#[derive(Clone)]
pub enum Again {
    /// A scene under a plan.
    Struck(Box<Scene>, Plan),
    /// A history of chance.
    Seed(u64),
}

impl Again {
    fn words(&self) -> String {
        match self {
            Self::Struck(scene, plan) => format!("[{}] with {plan:?}", scene.title),
            Self::Seed(seed) => format!("seed {seed}"),
        }
    }

    fn tell(&self) -> History {
        match self {
            Self::Struck(scene, plan) => play(scene, plan.clone(), true),
            Self::Seed(seed) => random::play(*seed, &Plant::default(), true),
        }
    }
}

/// One kind of violation: how often, and the first history that shows it.
#[derive(Clone)]
struct Find {
    times: u64,
    again: Again,
}

/// Violations by kind.
#[derive(Clone, Default)]
pub struct Finds(BTreeMap<(Promise, String), Find>);

impl Finds {
    pub fn add(&mut self, again: impl FnOnce() -> Again, history: &History) {
        // What follows from the first is not worth a line of its own.
        let Some(first) = history.violations.first() else { return };
        let what: String = first.what.chars().filter(|letter| !letter.is_ascii_digit()).take(160).collect();
        self.0.entry((first.promise, what)).or_insert_with(|| Find { times: 0, again: again() }).times += 1;
    }

    pub fn join(&mut self, other: Finds) {
        for (kind, find) in other.0 {
            let times = find.times;
            let known = self.0.entry(kind).or_insert(Find { times: 0, ..find });
            known.times += times;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Prints each kind, with the story of its first history.
    pub fn print(&self, stories: usize) {
        for ((promise, what), find) in &self.0 {
            println!("VIOLATION {promise:?}, {} times, first in {}: {what}", find.times, find.again.words());
        }
        for find in self.0.values().take(stories) {
            println!("\n--- {}\n{}", find.again.words(), find.again.tell().story.join("\n"));
        }
    }
}
