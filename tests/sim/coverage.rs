//! Which events are legal in which phase, as a table; and the proof that the histories visit every legal pair, that the machine
//! refuses every other, and that both were tried.
//!
//! The table is written from DESIGN 3 and the diagram of `rotation`. It speaks of pairs, not of parameters: a pair is legal where
//! some event of that kind belongs in some state of that phase.

use std::collections::{BTreeMap, BTreeSet};

use rekeyd::rotation::event::Snapshot;
use rekeyd::rotation::{Phase, ServiceState};

use crate::exhaustive::{Depth, SHAPES, exhaust};
use crate::run::History;
use crate::scene::Scene;

mod battery;
mod script;
mod stories;
mod wild;

/// The columns of the tables, each with its letter.
const PHASES: [(char, &str); 10] = [
    ('r', "at rest"),
    ('O', "opened"),
    ('G', "minting"),
    ('M', "minted"),
    ('R', "ready"),
    ('D', "deploying"),
    ('E', "deployed"),
    ('S', "soaking"),
    ('X', "disabled"),
    ('L', "deleted"),
];

/// The column X.
const DISABLED: usize = 8;

/// Every kind of event, and the phases in which rekeyd may write it down.
///
/// `r` at rest, `O` opened, `G` minting, `M` minted, `R` ready, `D` deploying, `E` deployed (a repush before it is closed), `S`
/// soaking, `X` disabled, `L` deleted. A rotation that is undone stays in the phase where that began, and one whose old key is gone
/// is `S` again until it is closed. Rows that differ by shape stand in [`WITHOUT_DISABLE`].
#[rustfmt::skip]
const TABLE: [(&str, &str); 43] = [
    // An operator's words come between any two effects.
    ("paused",              "rOGMRDESXL"),
    ("resumed",             "rOGMRDESXL"),
    ("retried",             "rOGMRDESXL"),
    ("adopted",             "rOGMRDESXL"),
    ("disowned",            "rOGMRDESXL"),
    ("reclaim_ordered",     "rOGMRDESXL"),
    ("despite_use_ordered", "rOGMRDESXL"),
    ("ordered",             "r........."),
    ("switch_ordered",      "r........."),
    // What a look at the world says. Nothing is looked at in E; at R and D only what the push needs, unless the new key leaves.
    ("halted",              "rOGMRD.SXL"),
    ("drift_found",         "r......SXL"),
    ("drift_cleared",       "r......SXL"),
    ("strangers_seen",      "rOGMRD.SXL"),
    // A rotation.
    ("opened",              "r........."),
    ("mint_begun",          ".O........"),
    ("minted",              "..G......."),
    ("mint_failed",         "..G......."),
    ("mint_unknown",        "..G......."),
    ("mint_settled",        "..G......."),
    ("probe_passed",        "...M......"),
    ("probe_failed",        "...MRD...."),
    ("push_begun",          "....RD...."),
    ("submitted",           ".....D...."),
    ("push_failed",         ".....D...."),
    ("push_unknown",        ".....D...."),
    ("confirmed",           ".....D...."),
    ("job_failed",          ".....D...."),
    ("job_lost",            ".....D...."),
    ("not_moved",           ".....D...."),
    ("verified",            ".....D...."),
    ("undo_begun",          "...M.D...."),
    ("rollback_begun",      "....RD.SX."),
    ("closed",              ".O.MRDESXL"),
    // A key on its way out, whichever rotation is open meanwhile; no evidence is gathered while targets move.
    ("disable_begun",       "rO.M.D.SXL"),
    ("disabled",            "rOGMRD.SXL"),
    ("enable_begun",        ".......SX."),
    ("enabled",             "rOGMRD.SXL"),
    ("delete_begun",        "rO.M.D.SXL"),
    ("deleted",             "rOGMRD.SXL"),
    ("retire_refused",      "rOGMRD.SXL"),
    ("absent_once",         "rOGMRD.SXL"),
    ("reappeared",          "rOGMRD.SXL"),
    ("gone",                "rOGMRD.SXL"),
];

/// Rows that say less where a key cannot be disabled (labelled secrets, slots): there the phase X is skipped as well.
#[rustfmt::skip]
const WITHOUT_DISABLE: [(&str, &str); 3] = [
    ("disable_begun",       ".........."),
    ("disabled",            ".........."),
    ("enable_begun",        ".........."),
];

/// What the machine accepts although nothing of rekeyd writes it there: known, and why it stands. Which of these a run meets in a
/// state that accepts them depends on chance, so that one which is refused by now is no complaint; take it off all the same.
#[rustfmt::skip]
const LAX: [(&str, &str, &str); 16] = [
    ("ordered",        ".OGMRDESXL", "the engine refuses an order while a rotation is open, the machine would keep it for the next one"),
    ("halted",         "......E...", "the diagram lets any phase halt; nothing is looked at in E that could"),
    ("drift_found",    ".OGMRDE...", "it changes a word for the status alone"),
    ("drift_cleared",  ".OGMRDE...", "it changes a word for the status alone"),
    ("strangers_seen", "......E...", "whenever a listing is seen it may be noted"),
    ("undo_begun",     "....R.....", "the diagram has it; a key that fails its probes at R goes back to M first, and is taken back there"),
    ("disable_begun",  "..G.R.E...", "that nothing is judged while a mint is unsettled or targets move is the rule of `steps` alone"),
    ("delete_begun",   "..G.R.E...", "that nothing is judged while a mint is unsettled or targets move is the rule of `steps` alone"),
    ("enable_begun",   "rOGMRDE..L", "a key on its way out has its own stages, whichever rotation is open; only its own health check asks for it"),
    ("disabled",       "......E...", IN_PASSING),
    ("enabled",        "......E...", IN_PASSING),
    ("deleted",        "......E...", IN_PASSING),
    ("retire_refused", "......E...", IN_PASSING),
    ("absent_once",    "......E...", IN_PASSING),
    ("reappeared",     "......E...", IN_PASSING),
    ("gone",           "......E...", IN_PASSING),
];

/// Why a key may move in E.
const IN_PASSING: &str = "a key on its way out has its own stages; E is over before it can move";

/// Kinds that may speak of a key or target that the state does not know: what is new, or somebody else's.
const OF_NOBODY: [&str; 5] = ["adopted", "disowned", "mint_settled", "minted", "reclaim_ordered"];

/// A kind of event in a phase.
type Pair = (&'static str, usize);

/// What was seen and tried.
#[derive(Default)]
pub struct Coverage {
    histories: u64,
    events: u64,
    visited: BTreeSet<Pair>,
    accepted: BTreeMap<Pair, String>,
    tried: BTreeSet<Pair>,
    of_nobody: BTreeMap<&'static str, String>,
    states: BTreeSet<String>,
    tries: u64,
    snapshot: Option<Box<Snapshot>>,
    /// Where a key cannot be disabled.
    without_disable: BTreeMap<Pair, String>,
    wrong: BTreeSet<String>,
}

impl Coverage {
    /// Replays every journal of a history, notes what happened where, and tries everything in every new state on the way.
    pub fn see(&mut self, history: &History) {
        self.histories += 1;
        for records in history.shelves.iter().flat_map(|shelf| shelf.records.values()) {
            let mut state = ServiceState::default();
            self.try_everything(&state);
            for record in records {
                let pair = (record.event.kind(), column(&state));
                if let Err(illegal) = state.apply(&record.event, &record.at) {
                    self.wrong.insert(format!("a journal does not replay: {illegal}"));
                    break;
                }
                self.events += 1;
                self.visited.insert(pair);
                if !can_disable(&state) {
                    self.without_disable.entry(pair).or_insert_with(|| format!("{:?} in a history", record.event));
                }
                self.try_everything(&state);
            }
        }
    }

    /// Legal pairs that no history has visited yet.
    pub fn missing(&self) -> Vec<Pair> {
        legal().difference(&self.visited).copied().collect()
    }

    fn try_everything(&mut self, state: &ServiceState) {
        if let Some(rotation) = &state.rotation {
            self.snapshot.get_or_insert_with(|| Box::new(rotation.snapshot.clone()));
        }
        // Without the terms of a rotation none can be opened; every state comes again in some history that knows them.
        let Some(snapshot) = &self.snapshot else { return };
        if !self.states.insert(battery::fingerprint(state)) {
            return;
        }
        let at = state.last_event.clone().unwrap_or_else(battery::first_moment);
        let mut copy = state.clone();
        for attempt in battery::attempts(state, snapshot) {
            let pair = (attempt.event.kind(), column(state));
            let known = match attempt.of_nobody {
                true => self.of_nobody.contains_key(pair.0),
                false if can_disable(state) => self.accepted.contains_key(&pair),
                false => self.without_disable.contains_key(&pair),
            };
            self.tried.insert(pair);
            if known {
                continue;
            }
            self.tries += 1;
            if copy.apply(&attempt.event, &at).is_ok() {
                copy = state.clone();
                let told = format!("{:?} in {}", attempt.event, battery::fingerprint(state));
                if !can_disable(state) {
                    self.without_disable.entry(pair).or_insert_with(|| told.clone());
                }
                if attempt.of_nobody {
                    self.of_nobody.insert(pair.0, told.clone());
                }
                self.accepted.entry(pair).or_insert(told);
            }
        }
    }

    /// Everything that is not as the tables say.
    fn complaints(&self) -> Vec<String> {
        let (legal, lax) = (legal(), lax());
        let all: BTreeSet<Pair> =
            TABLE.iter().flat_map(|(kind, _)| (0..PHASES.len()).map(move |column| (*kind, column))).collect();
        let accepted: BTreeSet<Pair> = self.accepted.keys().copied().collect();
        let allowed: BTreeSet<Pair> = legal.union(&lax).copied().collect();
        let mut complaints: Vec<String> = self.wrong.iter().cloned().collect();
        let mut complain = |what: &str, pairs: Vec<Pair>| {
            complaints.extend(pairs.iter().map(|pair| format!("{what}: {}{}", told(*pair), self.example(*pair))));
        };
        complain("known to be lax and legal at once", legal.intersection(&lax).copied().collect());
        complain("never tried", all.difference(&self.tried).copied().collect());
        complain("legal, and refused in every state", legal.difference(&accepted).copied().collect());
        complain("illegal, and accepted", accepted.difference(&allowed).copied().collect());
        complain("legal, and in no history", self.missing());
        complain("in a history, and not legal", self.visited.difference(&legal).copied().collect());
        let less = pairs(WITHOUT_DISABLE.into_iter());
        for (pair, told_so) in &self.without_disable {
            let narrower = WITHOUT_DISABLE.iter().any(|(kind, _)| *kind == pair.0) && !less.contains(pair);
            if narrower || pair.1 == DISABLED {
                complaints.push(format!("illegal where no key can be disabled: {}, such as {told_so}", told(*pair)));
            }
        }
        let nobody: BTreeSet<&str> = self.of_nobody.keys().copied().collect();
        let may: BTreeSet<&str> = OF_NOBODY.into();
        for kind in nobody.difference(&may) {
            complaints.push(format!("accepted of a key or target that nobody knows: {}", self.of_nobody[kind]));
        }
        for kind in may.difference(&nobody) {
            complaints.push(format!("may speak of what nobody knows, and is refused: {kind}"));
        }
        for (count, of) in [(self.states.len(), "states"), (legal.len(), "legal pairs"), (accepted.len(), "accepted")] {
            if count == 0 {
                complaints.push(format!("no {of} at all"));
            }
        }
        complaints
    }

    fn example(&self, pair: Pair) -> String {
        self.accepted.get(&pair).map(|told| format!(", such as {told}")).unwrap_or_default()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (legal, lax) = (legal(), lax());
        let illegal = self.tried.iter().filter(|pair| !legal.contains(*pair) && !lax.contains(*pair)).count();
        write!(
            f,
            "{} histories, {} events, {} states, {} tries; {} pairs legal, {} of them visited; {illegal} illegal pairs tried, {} \
             known to be lax, {} of them met",
            self.histories,
            self.events,
            self.states.len(),
            self.tries,
            legal.len(),
            legal.intersection(&self.visited).count(),
            lax.len(),
            lax.iter().filter(|pair| self.accepted.contains_key(*pair)).count()
        )
    }
}

/// Feeds single strikes, written stories and stories of chance; tells every pair that is not as the tables say, by name.
pub fn section() -> bool {
    let started = std::time::Instant::now();
    let mut coverage = Coverage::default();
    for shape in SHAPES {
        for targets in [1, 2] {
            exhaust(&Scene::of(shape, targets), Depth::Singles, &mut |history| coverage.see(history));
        }
    }
    println!("coverage, single strikes: {coverage}");
    stories::tell_all(&mut coverage);
    println!("coverage, written stories: {coverage}");
    wild::fill(&mut coverage);
    println!("coverage, stories of chance: {coverage}, in {:.1} s", started.elapsed().as_secs_f64());
    let complaints = coverage.complaints();
    complaints.iter().for_each(|complaint| println!("coverage: {complaint}"));
    complaints.is_empty()
}

fn column(state: &ServiceState) -> usize {
    let phase = state.phase().map_or("at rest", Phase::as_str);
    PHASES.iter().position(|(_, name)| *name == phase).expect("every phase has a column")
}

/// Whether the keys of a service can be disabled, wherever they live.
fn can_disable(state: &ServiceState) -> bool {
    let opened = state.rotation.iter().map(|rotation| rotation.snapshot.issuer.shape);
    let left = state.leaving.values().map(|leaving| leaving.shape);
    opened.chain(left).chain(state.home.iter().map(|home| home.shape)).any(|shape| shape.can_disable())
}

fn told((kind, column): Pair) -> String {
    format!("({}, {kind})", PHASES[column].1)
}

fn legal() -> BTreeSet<Pair> {
    pairs(TABLE.into_iter())
}

fn lax() -> BTreeSet<Pair> {
    pairs(LAX.into_iter().map(|(kind, row, _)| (kind, row)))
}

fn pairs(rows: impl Iterator<Item = (&'static str, &'static str)>) -> BTreeSet<Pair> {
    let mut pairs = BTreeSet::new();
    for (kind, row) in rows {
        assert_eq!(row.chars().count(), PHASES.len(), "the row of {kind} has a place for every phase");
        for (column, (cell, (letter, _))) in row.chars().zip(PHASES).enumerate() {
            assert!(cell == '.' || cell == letter, "{cell} of {kind} stands where {letter} belongs");
            if cell == letter {
                pairs.insert((kind, column));
            }
        }
    }
    pairs
}
