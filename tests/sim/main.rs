//! The simulator: whole rotations in memory and in virtual time, with the real engine, planner and machine, struck at every site.
//!
//! ```text
//! cargo test --test sim                                    every single strike, some pairs, a slice of chance
//! cargo test --test sim -- --pairs                         every ordered pair as well
//! cargo test --release --test sim -- --minutes 20          as many histories of chance as fit
//! cargo test --test sim -- --seed 4711                     one of them again, with its story
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

mod chance;
mod counts;
mod coverage;
mod exhaustive;
mod faults;
mod journal;
mod mistakes;
mod operator;
mod oracle;
mod ports;
mod random;
mod run;
mod scene;
mod stand_in;
mod world;

use counts::{Counts, Finds};
use exhaustive::{Depth, SHAPES};
use oracle::Promise;
use rekeyd::model::Shape;
use scene::Scene;

/// Plays rotations in memory, strikes them, and holds the promises against what happens.
#[derive(Parser)]
struct Options {
    /// Sections: exhaustive, coverage, real, chance, mistakes; none means all.
    sections: Vec<String>,
    /// Every ordered pair of strikes, not only every single one.
    #[arg(long)]
    pairs: bool,
    /// Plays the history of chance of this seed, and tells it.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed of the histories of chance.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many histories of chance.
    #[arg(long, default_value_t = 300)]
    histories: u64,
    /// As many histories of chance as fit into this many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// How many stories are told of what was found.
    #[arg(long, default_value_t = 1)]
    stories: usize,
    // What `cargo test` passes to every test binary.
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        run::note_panic();
        eprintln!("{info}");
    }));
    let options = Options::parse();
    if options.list {
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = options.seed {
        return told(random::play(seed, &scene::Plant::default(), true));
    }
    let wanted = |section: &str| options.sections.is_empty() || options.sections.iter().any(|name| name == section);
    let mut sound = true;
    if options.minutes.is_none() && wanted("exhaustive") {
        sound &= exhaustive(&options);
    }
    if options.minutes.is_none() && wanted("coverage") {
        sound &= coverage::section();
    }
    if options.minutes.is_none() && wanted("real") {
        sound &= real(&options);
    }
    if wanted("chance") {
        sound &= chance(&options);
    }
    if options.minutes.is_none() && wanted("mistakes") {
        sound &= mistakes::run();
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn told(history: run::History) -> ExitCode {
    println!("{}", history.story.join("\n"));
    if history.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every strike, and every pair of them, in a world of every shape, with targets that know no jobs, on the way to a role, and with
/// what is signed with a key beside the key.
fn exhaustive(options: &Options) -> bool {
    let depth = if options.pairs { Depth::Pairs } else { Depth::Singles };
    let (mut counts, mut finds) = (Counts::default(), Finds::default());
    let shapes = SHAPES.into_iter().flat_map(|shape| [1, 2].map(|targets| Scene::of(shape, targets)));
    let jobless = [(true, 1), (false, 1), (true, 2)].map(|(shows, targets)| Scene::jobless(shows, targets));
    let switched = [
        (Shape::ShownOnce, true, 1),
        (Shape::ShownOnce, false, 2),
        (Shape::Labelled, true, 1),
        (Shape::Slots, true, 1),
    ]
    .map(|(shape, shows, targets)| Scene::switched(shape, shows, targets));
    let signed = [true, false].map(Scene::signed);
    for scene in shapes.chain(jobless).chain(switched).chain([Scene::providers(1)]).chain(signed) {
        let started = Instant::now();
        let (more, found) = exhaustive::exhaust(&scene, depth, &mut |_| {});
        println!("{}: {} histories in {:.1} s", scene.title, more.histories, started.elapsed().as_secs_f64());
        counts.join(&more);
        finds.join(found);
    }
    report("exhaustive", &counts, &finds, options)
}

/// Every single strike in a world whose issuer is the one that is shipped, at a stand-in of its provider.
fn real(options: &Options) -> bool {
    let (mut counts, mut finds) = (Counts::default(), Finds::default());
    for scene in stand_in::scenes() {
        let started = Instant::now();
        let (more, found) = exhaustive::exhaust(&scene, Depth::Singles, &mut |_| {});
        println!("{}: {} histories in {:.1} s", scene.title, more.histories, started.elapsed().as_secs_f64());
        counts.join(&more);
        finds.join(found);
    }
    report("real", &counts, &finds, options)
}

/// Histories of chance: a number of them, or as many as fit.
fn chance(options: &Options) -> bool {
    let end = options.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let (counts, finds, next) = random::many(options.from, options.histories, end);
    println!("chance: seeds {}..{next}", options.from);
    report("chance", &counts, &finds, options)
}

fn report(section: &str, counts: &Counts, finds: &Finds, options: &Options) -> bool {
    println!("{section}: {counts}");
    finds.print(options.stories);
    assert!(counts.histories > 0 && counts.strikes > 0, "{section} did nothing");
    for (promise, checks) in Promise::ALL.iter().zip(counts.checks) {
        // A service has neighbours only in histories of chance, and not in every one.
        let alone =
            *promise == Promise::Isolation && counts.histories < 100 || matches!(section, "exhaustive" | "real");
        assert!(checks > 0 || alone && *promise == Promise::Isolation, "{section} never checked {promise:?}");
    }
    finds.is_empty()
}
