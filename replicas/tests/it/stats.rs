//! What is counted comes out, under its name and labels.

use std::collections::BTreeMap;

use escala_replicas::{Reason, Role, Session, Strategy};

use crate::documented;

#[tokio::test(start_paused = true)]
async fn every_figure_is_visited_with_its_labels() {
    let db = documented(Strategy::LeastLoaded);
    db.write().unwrap().succeeded();
    db.read(&Session::pinned_to_primary()).unwrap().failed();
    drop(db.write().unwrap());
    let _held = db.write().unwrap();
    let _read = db.read(&Session::new()).unwrap();

    let mut seen = BTreeMap::new();
    db.stats().visit(&mut |name, labels, value| {
        let labels: Vec<String> =
            labels.iter().map(|(key, text)| format!("{key}={text}")).collect();
        let key = format!("{name}{{{}}}", labels.join(","));
        assert!(seen.insert(key, value).is_none(), "{name} twice");
    });
    let figure = |key: &str| seen.get(key).copied();
    for (name, value) in [
        ("weight", 1.0),
        ("healthy", 1.0),
        ("in_flight", 1.0),
        ("started_total", 4.0),
        ("succeeded_total", 1.0),
        ("failed_total", 1.0),
        ("cancelled_total", 1.0),
        ("ejections_total", 0.0),
        ("returns_total", 0.0),
        ("probes_total", 0.0),
        ("probes_failed_total", 0.0),
    ] {
        let key = format!("replicas_node_{name}{{node=primary,role=primary}}");
        assert_eq!(figure(&key), Some(value), "{key}");
    }
    assert_eq!(figure("replicas_node_weight{node=replica-3,role=replica}"), Some(2.0));
    assert_eq!(figure("replicas_picks_total{node=primary,reason=write}"), Some(3.0));
    assert_eq!(figure("replicas_picks_total{node=primary,reason=pinned}"), Some(1.0));
    assert_eq!(figure("replicas_picks_total{node=replica-1,reason=balanced}"), Some(1.0));
    assert_eq!(figure("replicas_picks_total{node=primary,reason=panic_mode}"), Some(0.0));
    assert_eq!(figure("replicas_refused_total{}"), Some(0.0));
    assert_eq!(figure("replicas_strategy{strategy=least_loaded}"), Some(1.0));
    for name in ["panic", "waiting", "draining", "token_waits_total", "token_waits_missed_total"] {
        assert_eq!(figure(&format!("replicas_{name}{{}}")), Some(0.0), "{name}");
    }
    assert_eq!(seen.len(), 4 * (11 + Reason::ALL.len()) + 7);
}

#[tokio::test(start_paused = true)]
async fn nodes_come_in_order_and_are_found_by_name() {
    let stats = documented(Strategy::Weighted).stats();
    let names: Vec<&str> = stats.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["primary", "replica-1", "replica-2", "replica-3"]);
    assert_eq!(stats.node("replica-2").unwrap().role, Role::Replica);
    assert_eq!(stats.node("replica-9"), None);
    assert_eq!(stats.picks_for(Reason::Weighted), 0);
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_serialised_in_words() {
    let db = documented(Strategy::LeastLoaded);
    drop(db.write().unwrap());
    let json = serde_json::to_value(db.stats()).unwrap();
    assert_eq!(json["strategy"], "least_loaded");
    assert_eq!(json["nodes"][0]["role"], "primary");
    assert_eq!(json["nodes"][0]["cancelled_total"], 1);
    let write = json["nodes"][0]["picks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["reason"] == "write");
    assert_eq!(write.unwrap()["picks_total"], 1);
}
