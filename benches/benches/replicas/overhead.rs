//! What routing adds to a request over TCP that takes no time at the server.

use escala_benches::table::{median, row, title};
use escala_replicas::{Replicas, Strategy};
use tokio::time::{Duration, Instant};
use tower::buffer::Buffer;

use crate::slow::{Ask, Node, Read, Server, ask_with, node};
use crate::{Effort, tower_balance};

/// Requests between two looks at the clock.
const BATCH: u64 = 100;

pub(crate) async fn run(effort: Effort) -> anyhow::Result<()> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Server::start(1, Duration::ZERO).await?);
    }
    let nodes: Vec<Node> = servers.iter().map(|server| node(server.client())).collect();
    let ours = |strategy| {
        let set = Replicas::without_primary().strategy(strategy);
        let set = set.replica("a", 3, nodes[0].clone()).replica("b", 3, nodes[1].clone());
        set.replica("c", 2, nodes[2].clone()).build().map(|set| ask_with(set.service()))
    };
    let contenders: [(&str, Ask); 5] = [
        ("one node, no routing", ask_with(nodes[0].clone())),
        ("escala least_loaded", ours(Strategy::LeastLoaded)?),
        ("escala peak_ewma", ours(Strategy::PeakEwma)?),
        (
            "tower Buffer<Balance>, pending",
            ask_with(Buffer::new(tower_balance::pending(&nodes), 1_024)),
        ),
        (
            "tower Buffer<Balance>, peak ewma",
            ask_with(Buffer::new(tower_balance::ewma(&nodes), 1_024)),
        ),
    ];
    let mut measured: Vec<Vec<f64>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..effort.of(300, 1) {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let ask = Ask::clone(&contenders[at].1);
            // On a task, as in a server.
            let time = tokio::spawn(async move {
                let begun = Instant::now();
                for number in 0..BATCH {
                    anyhow::ensure!(ask(Read(number)).await.is_ok_and(|answer| answer == number));
                }
                Ok(begun.elapsed())
            });
            measured[at].push(time.await??.as_nanos() as f64 / 1_000.0 / BATCH as f64);
        }
    }
    title("One request after the other over TCP, in us");
    row("", &["median", "over row 1"].map(ToOwned::to_owned));
    for ((name, _), times) in contenders.iter().zip(&measured) {
        let over: Vec<f64> =
            times.iter().zip(&measured[0]).map(|(time, base)| time - base).collect();
        row(name, &[format!("{:.1}", median(times)), format!("{:+.2}", median(&over))]);
    }
    Ok(())
}
