//! The program: simulate, bite, replay, check.

use trix_chaos::world::{Setup, World};

fn main() {
    let n: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(10);
    let t = std::time::Instant::now();
    let mut total = trix_chaos::world::Counts::default();
    for seed in 0..n {
        let mut setup = Setup { seed, steps: 500, broken: None, trace: false, record: false };
        let run = World::run(&setup);
        total.add(&run.counts);
        if !run.violations.is_empty() {
            setup.trace = true;
            let run = World::run(&setup);
            println!("seed {seed} at {}", run.at);
            for line in &run.trace[run.trace.len().saturating_sub(40)..] { println!("  {line}"); }
            for v in &run.violations { println!("  {v}"); }
            break;
        }
    }
    println!("{total:?} {:?}", t.elapsed());
}
