//! The caller's own zone first, until it is overloaded.

use escala_replicas::{Member, Pick, Reason, Replicas, Session, Strategy};

use crate::{Name, in_flight, node, steady};

/// Two nodes in the caller's zone, one of them heavier, and two in another.
fn zoned(strategy: Strategy) -> Replicas<Name> {
    let near = |name, weight| Member::replica(name, name).weight(weight).zone("here");
    let far = |name| Member::replica(name, name).weight(2).zone("there");
    Replicas::with_members([near("near-1", 3), near("near-2", 1), far("far-1"), far("far-2")])
        .strategy(strategy)
        .config(steady().zone("here").zone_overload(2.0))
        .build()
        .unwrap()
}

fn read(db: &Replicas<Name>) -> Pick<Name> {
    db.read(&Session::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_set_is_read_in_its_own_zone_by_weight() {
    for strategy in [Strategy::Weighted, Strategy::LeastLoaded, Strategy::PeakEwma] {
        let db = zoned(strategy);
        for _ in 0..40 {
            let pick = read(&db);
            assert_eq!(pick.reason(), Reason::Zone, "{strategy}");
            pick.succeeded();
        }
        let started = ["near-1", "near-2"].map(|name| node(&db, name).started_total);
        assert_eq!(started.iter().sum::<u64>(), 40);
        if strategy != Strategy::PeakEwma {
            assert_eq!(started, [30, 10], "{strategy}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_zone_spills_and_keeps_twice_the_load_of_the_others() {
    let db = zoned(Strategy::LeastLoaded);
    let held: Vec<_> = (0..8).map(|_| read(&db)).collect();
    assert!(held.iter().all(|pick| pick.reason() == Reason::Zone), "four on each of its nodes");
    let more: Vec<_> = (0..292).map(|_| read(&db)).collect();
    let far: u64 = ["far-1", "far-2"].iter().map(|name| node(&db, name).in_flight).sum();
    assert!((95..=105).contains(&far), "a third of 300, not {far}");
    assert!(more.iter().all(|pick| match pick.reason() {
        Reason::Zone => pick.name().starts_with("near"),
        Reason::ZoneSpill => pick.name().starts_with("far"),
        _ => false,
    }));
    drop((held, more));
    assert_eq!(read(&db).reason(), Reason::Zone);
    assert_eq!(in_flight(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn a_zone_without_a_free_or_healthy_node_spills() {
    let db = zoned(Strategy::Weighted);
    db.change(|members| {
        members.set_max_in_flight("near-1", Some(1))?;
        members.set_max_in_flight("near-2", Some(1))
    })
    .unwrap();
    let held = [read(&db), read(&db)];
    assert!(held.iter().all(|pick| pick.reason() == Reason::Zone));
    let spilled = read(&db);
    assert_eq!((spilled.reason(), &spilled.name()[..3]), (Reason::ZoneSpill, "far"));
    drop((held, spilled));

    while ["near-1", "near-2"].iter().any(|name| node(&db, name).healthy) {
        read(&db).failed();
    }
    let far: Vec<_> = (0..10).map(|_| read(&db).reason()).collect();
    assert_eq!(far, [Reason::ZoneSpill; 10]);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_nobody_is_in_does_not_matter() {
    let db = Replicas::without_primary().replica("a", 1, "a").replica("b", 1, "b");
    let db = db.config(steady().zone("here")).build().unwrap();
    assert_eq!(read(&db).reason(), Reason::Balanced);
}
