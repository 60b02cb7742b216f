//! What picket costs and how true it is, beside a bare hyper and rustls loop and a peer, in one table.
//!
//! `cargo bench` prints it; `cargo bench -- lateness` only one part of size, cost, lateness and duration. What is
//! measured runs on one core, its targets and drivers on another.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use blackbox::Blackbox;
use load::Load;
use process::{Core, size_of, stay_on};
use quantile::quantile;
use target::Target;

mod agent;
mod bare;
mod blackbox;
mod exact;
mod load;
mod process;
mod quantile;
mod target;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((mode, [ca])) if mode == "serve" => target::serve(ca),
        Some((mode, rest)) if mode == "bare" => bare::run(rest),
        _ if arguments.iter().any(|argument| argument == "--bench") => measure(&arguments),
        // As a test it only has to build.
        _ => Ok(()),
    }
}

fn measure(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let named: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part| named.is_empty() || named.iter().any(|name| *name == part);
    stay_on(Core::Rest)?;
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("ca.pem");
    let target = Target::start(folder.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let blackbox = Blackbox::start(&ca).await?;
        if blackbox.is_none() {
            println!("prometheus-blackbox-exporter is not installed: its columns stay empty.\n");
        }
        if wanted("size") {
            size_and_start(&target)?;
        }
        if wanted("cost") {
            costs(&target, blackbox.as_ref(), &ca).await?;
        }
        if wanted("lateness") {
            lateness(&target).await?;
        }
        if wanted("duration") {
            durations(&target, blackbox.as_ref()).await?;
        }
        Ok(())
    })
}

fn size_and_start(target: &Target) -> Result<(), Box<dyn Error>> {
    println!("## Size and start\n");
    println!("| | measured | goal | |\n|---|---|---|---|");
    let size = size_of(Path::new(agent::PICKET))?;
    println!("| binary | {size:.1} MiB | 15 | {} |", mark(size <= 15.0));
    for (probes, goal) in [(100, 15.0), (10_000, 64.0)] {
        let mut starts = Vec::new();
        let mut resident = 0.0;
        for _ in 0..3 {
            let (took, held) = agent::start_up(probes, target)?;
            starts.push(took.as_secs_f64() * 1e3);
            resident = held;
        }
        let ready = quantile(&mut starts, 0.5);
        println!("| ready with {probes} probes | {ready:.0} ms | 100 | {} |", mark(ready <= 100.0));
        println!(
            "| idle with {probes} probes | {resident:.1} MiB | {goal} | {} |",
            mark(resident <= goal)
        );
    }
    Ok(())
}

async fn costs(
    target: &Target,
    blackbox: Option<&Blackbox>,
    ca: &Path,
) -> Result<(), Box<dyn Error>> {
    println!("\n## CPU of one probe, a new connection each, journal and export included\n");
    println!(
        "| | in flight | bare loop | picket | x bare | goal | blackbox | x blackbox | goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let http = Load::levels(false, target.plain).map(|load| ("HTTP", load, 150.0, 0.3));
    let https = Load::levels(true, target.tls).map(|load| ("HTTPS", load, 500.0, 0.37));
    for (name, load, most, share) in http.into_iter().chain(https) {
        let bare = micros(bare::cost(&load, target, ca).await?);
        let (cost, spoiled) = agent::cost(&load, target, ca).await?;
        let cost = micros(cost);
        let peer = match blackbox {
            Some(blackbox) => Some(micros(blackbox.cost(&load, target).await?)),
            None => None,
        };
        let good =
            cost <= most && cost <= 1.5 * bare && peer.is_none_or(|peer| cost <= share * peer);
        let of_peer = peer.map(|peer| format!("{peer:.0} us | {:.2}", cost / peer));
        println!(
            "| {name} | {} | {bare:.0} us | {cost:.0} us (goal {most:.0}) | {:.2} | 1.5 | {} | {share} | {}{} |",
            load.in_flight,
            cost / bare,
            of_peer.as_deref().unwrap_or("- | -"),
            mark(good),
            spoiled_by(spoiled)
        );
    }
    Ok(())
}

async fn lateness(target: &Target) -> Result<(), Box<dyn Error>> {
    println!("\n## Lateness and memory under way\n");
    println!("| probes | runs a second | late p50 (goal 0.2 ms) | late p99 (goal 1 ms) | RSS | |");
    println!("|---|---|---|---|---|---|");
    for probes in [100, 1_000, 10_000] {
        let steady = agent::steady(probes, target).await?;
        let [middle, tail] = [0.5, 0.99].map(|share| steady.lateness.quantile(share) * 1e3);
        println!(
            "| {} | {:.0} | {middle:.2} ms | {tail:.2} ms | {:.1} MiB | {}{} |",
            steady.probes,
            steady.rate,
            steady.resident,
            mark(middle < 0.2 && tail < 1.0),
            spoiled_by(steady.spoiled)
        );
    }
    Ok(())
}

async fn durations(target: &Target, blackbox: Option<&Blackbox>) -> Result<(), Box<dyn Error>> {
    println!("\n## Measured less true duration, of a target that holds for exactly 100 ms\n");
    println!("| | started together | runs | p50 | p99 | goal | |\n|---|---|---|---|---|---|---|");
    for (together, rounds, share, goal) in [(1, 40, 0.5, 0.3), (256, 4, 0.99, 5.0)] {
        let row = |who: &str, mut errors: exact::Errors| {
            let at = quantile(&mut errors, share) * 1e3;
            let [middle, tail] = [0.5, 0.99].map(|share| quantile(&mut errors, share) * 1e3);
            let asked = format!("p{:.0} at most {goal} ms", share * 100.0);
            println!(
                "| {who} | {together} | {} | {middle:.2} ms | {tail:.2} ms | {asked} | {} |",
                errors.len(),
                mark(at <= goal)
            );
        };
        row("picket", exact::of_picket(target, together, rounds).await?);
        if let Some(blackbox) = blackbox {
            row("blackbox", exact::of_blackbox(target, blackbox, together, rounds).await?);
        }
    }
    Ok(())
}

fn micros(length: Duration) -> f64 {
    length.as_secs_f64() * 1e6
}

fn mark(good: bool) -> &'static str {
    if good { "met" } else { "**not met**" }
}

fn spoiled_by(runs: f64) -> String {
    if runs > 0.0 { format!(", spoiled: {runs:.0} runs did not pass") } else { String::new() }
}
