//! Known wrong implementations, each planted between the engine and what it works with: the simulator must catch every one, by the
//! promise that it breaks. A check that nothing can fail proves nothing.
//!
//! The product has no switch for any of them. Each is played in the scene that shows it, with the fewest strikes that do; and the
//! same histories without it must break no promise, so that it is the mistake that was caught.

use crate::faults::{Op, Plan, Strike};
use crate::oracle::{Promise, Violation};
use crate::run::play;
use crate::scene::{Plant, Scene};

mod asking;
mod deciding;
mod scenes;
mod table;
mod writing;

use table::MISTAKES;

/// A wrong implementation.
struct Mistake {
    /// What it does.
    name: &'static str,
    /// Who made it, where one is known that did.
    seen_at: &'static str,
    plant: fn() -> Plant,
    scene: fn() -> Scene,
    struck: Struck,
    /// What it breaks first.
    promise: Promise,
}

/// Which histories are played.
enum Struck {
    /// One, without a strike.
    Calm,
    /// One for every time that this is asked or written, and for each of these strikes.
    Any(Op, &'static [Strike]),
    /// One, struck each nth time (from 0) that such a thing is asked or written.
    Nth(&'static [(Op, usize, Strike)]),
}

/// How a mistake was caught.
struct Caught {
    histories: usize,
    violation: Violation,
}

/// Plants every mistake, prints how it was caught, and says whether all were caught as they should be.
pub fn run() -> bool {
    let started = std::time::Instant::now();
    let mut missed = 0;
    for mistake in MISTAKES {
        match mistake.catch() {
            Ok(Caught { histories, violation }) => println!(
                "caught by {:?} in history {histories}: {} [{}]: {}",
                mistake.promise, mistake.name, mistake.seen_at, violation.what
            ),
            Err(why) => {
                missed += 1;
                println!("PLANTED MISTAKE NOT CAUGHT: {}: {why}", mistake.name);
            }
        }
    }
    let caught = MISTAKES.len() - missed;
    let seconds = started.elapsed().as_secs_f64();
    println!("{caught} of {} planted mistakes caught ({seconds:.1} s)", MISTAKES.len());
    missed == 0
}

/// What happened in a history that went otherwise than it should.
fn story(scene: &Scene, plan: &Plan) -> String {
    play(scene, plan.clone(), true).story.join("\n")
}

impl Mistake {
    fn catch(&self) -> Result<Caught, String> {
        let plans = self.plans();
        let tried = plans.len();
        for (number, plan) in plans.into_iter().enumerate() {
            if let Some(violation) = play(&(self.scene)(), plan.clone(), false).violations.first() {
                let story = story(&(self.scene)(), &plan);
                return Err(format!("{:?} is broken without it: {}\n{story}", violation.promise, violation.what));
            }
            let mut violations = play(&self.planted(), plan.clone(), false).violations.into_iter();
            match violations.next() {
                Some(violation) if violation.promise == self.promise => {
                    return Ok(Caught { histories: number + 1, violation });
                }
                Some(Violation { promise, what, .. }) => {
                    let story = story(&self.planted(), &plan);
                    return Err(format!("breaks {promise:?} first, and not {:?}: {what}\n{story}", self.promise));
                }
                None if number + 1 == tried => {
                    return Err(format!("not caught in {tried} histories\n{}", story(&self.planted(), &plan)));
                }
                None => {}
            }
        }
        Err("nothing is there to be struck".into())
    }

    fn planted(&self) -> Scene {
        Scene { plant: (self.plant)(), ..(self.scene)() }
    }

    fn plans(&self) -> Vec<Plan> {
        match self.struck {
            Struck::Calm => vec![Plan::calm()],
            Struck::Nth(strikes) => vec![Plan::nth(strikes)],
            Struck::Any(op, strikes) => {
                let sites = play(&self.planted(), Plan::calm(), false).sites;
                let times = sites.iter().filter(|site| site.op == op).count();
                let each = |nth| strikes.iter().map(move |strike| Plan::nth(&[(op, nth, *strike)]));
                (0..times).flat_map(each).collect()
            }
        }
    }
}
