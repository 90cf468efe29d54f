//! The simulator: whole rotations in memory and in virtual time, with the real engine, planner and machine, struck at every site.
//!
//! ```text
//! cargo test --test sim                         what CI runs: single strikes, pairs, a slice of chance, planted mistakes, coverage
//! cargo test --release --test sim -- chance --minutes 20      as many histories of chance as fit
//! cargo test --test sim -- chance --seed 4711                 one of them again, with its story
//! ```

mod chance;
mod counts;
mod exhaustive;
mod faults;
mod journal;
mod operator;
mod oracle;
mod ports;
mod run;
mod scene;
mod world;

fn main() {
    std::panic::set_hook(Box::new(|info| {
        run::note_panic();
        eprintln!("{info}");
    }));
    let args: Vec<String> = std::env::args().skip(1).collect();
    let depth =
        if args.iter().any(|arg| arg == "pairs") { exhaustive::Depth::Pairs } else { exhaustive::Depth::Singles };
    let stories = args.iter().find_map(|arg| arg.strip_prefix("stories=")).map_or(2, |n| n.parse().unwrap());
    let shapes: Vec<_> = exhaustive::SHAPES
        .iter()
        .filter(|shape| {
            args.is_empty() || args.iter().any(|arg| format!("{shape:?}") == *arg) || args.iter().any(|a| a == "all")
        })
        .collect();
    for shape in shapes {
        for targets in [1, 2] {
            let scene = scene::Scene::of(*shape, targets);
            let started = std::time::Instant::now();
            let (counts, finds) = exhaustive::exhaust(&scene, depth, &mut |_| {});
            println!("{}: {counts} ({:.1} s)", scene.title, started.elapsed().as_secs_f64());
            finds.print(stories);
        }
    }
}
