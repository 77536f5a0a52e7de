//! The races that other caches lose, between processes of their own on one Redis.

use std::time::Duration;

use testkit::Redis;
use tokio::time::sleep;

use super::player::{BOUND, Process};

const NO_LOCK: Duration = Duration::ZERO;
const LOCK: Duration = Duration::from_secs(30);

/// Every way to take a key away; the last puts something newer in.
const REMOVALS: [&str; 5] =
    ["remove k", "remove_tag t", "remove_matching k*", "clear", "insert k 2"];

/// This process and another.
async fn pair(redis: &Redis, lock: Duration) -> (Process, Process) {
    let url = redis.url();
    (Process::there(&url, lock), Process::here(&url, lock).await)
}

/// Starts processes on a cold key, lets them all load, and says how many loads that took.
async fn stampede(redis: &Redis, lock: Duration, processes: usize, callers: usize) -> u64 {
    let mut processes: Vec<_> =
        (0..processes).map(|_| Process::there(&redis.url(), lock)).collect();
    for process in &mut processes {
        process.ask("set 7").await;
    }
    for process in &mut processes {
        process.ask(&format!("call {callers} k")).await;
    }
    for process in &mut processes {
        process.ask("open").await;
    }
    let mut loads = 0;
    for process in &mut processes {
        assert_eq!(process.ask("wait").await, format!("7*{callers}"));
        loads += process.ask("loads").await.parse::<u64>().unwrap();
    }
    loads
}

#[tokio::test]
async fn ten_thousand_callers_in_four_processes_cause_one_load_under_the_lock() {
    let redis = Redis::start().await.unwrap();
    assert_eq!(stampede(&redis, LOCK, 4, 2_500).await, 1);
}

#[tokio::test]
async fn without_the_lock_each_process_loads_a_cold_key_at_most_once() {
    let redis = Redis::start().await.unwrap();
    let loads = stampede(&redis, NO_LOCK, 4, 500).await;
    assert!((1..=4).contains(&loads), "{loads}");
}

/// One process loads a value; before the load ends another takes it away.
async fn removed_while_loading(redis: &Redis, loader: &mut Process, remover: &mut Process) {
    for removal in REMOVALS {
        loader.ask("set 1").await;
        loader.ask("call 1 k").await;
        loader.ask("begun").await;
        loader.ask("set 2").await;
        remover.ask("set 2").await;
        assert_eq!(remover.ask(removal).await, "true", "{removal}");
        loader.ask("open").await;
        assert_eq!(loader.ask("wait").await, "1*1", "who asked before gets what was there");

        // The remover at once, and a process that has only Redis to go by.
        let newer = if removal.starts_with("insert") { "2" } else { "none" };
        let mut third = Process::here(&redis.url(), NO_LOCK).await;
        for _ in 0..20 {
            assert_eq!(remover.ask("get k").await, newer, "{removal}");
            assert_eq!(third.ask("get k").await, newer, "{removal}");
            sleep(Duration::from_millis(1)).await;
        }
        sleep(BOUND).await;
        for process in [&mut *loader, &mut *remover, &mut third] {
            assert_eq!(process.ask("get k").await, newer, "{removal}");
        }
        third.ask("set 2").await;
        for process in [&mut *loader, &mut *remover, &mut third] {
            assert_eq!(process.ask("read k").await, "2", "{removal}");
        }
        assert_eq!(remover.ask("clear").await, "true");
        loader.ask("close").await;
        sleep(BOUND).await;
    }
}

#[tokio::test]
async fn a_removal_here_beats_a_load_under_way_there() {
    let redis = Redis::start().await.unwrap();
    let (mut there, mut here) = pair(&redis, NO_LOCK).await;
    removed_while_loading(&redis, &mut there, &mut here).await;
}

#[tokio::test]
async fn a_removal_there_beats_a_load_under_way_here() {
    let redis = Redis::start().await.unwrap();
    let (mut there, mut here) = pair(&redis, NO_LOCK).await;
    removed_while_loading(&redis, &mut here, &mut there).await;
}

#[tokio::test]
async fn a_leader_that_goes_away_harms_none_of_fifty_followers_in_either_process() {
    let redis = Redis::start().await.unwrap();
    let (mut leading, mut following) = pair(&redis, LOCK).await;
    leading.ask("set 7").await;
    leading.ask("call 1 k").await;
    leading.ask("begun").await;
    leading.ask("call 50 k").await;
    following.ask("call 50 k").await;
    assert_eq!(leading.ask("abandon").await, "true");
    leading.ask("open").await;
    for (process, loads) in [(&mut leading, "1"), (&mut following, "0")] {
        assert_eq!(process.ask("wait").await, "7*50");
        assert_eq!(process.ask("loads").await, loads);
    }
}

#[tokio::test]
async fn a_process_killed_during_its_load_holds_the_others_up_only_for_the_time_of_its_lock() {
    let redis = Redis::start().await.unwrap();
    let (mut dying, mut other) = pair(&redis, Duration::from_millis(500)).await;
    dying.ask("call 1 k").await;
    dying.ask("begun").await;
    other.ask("set 7").await;
    other.ask("call 50 k").await;
    dying.kill().await;
    other.ask("open").await;
    assert_eq!(other.ask("wait").await, "7*50");
    assert_eq!(other.ask("loads").await, "1");
}

#[tokio::test]
async fn six_hundred_impatient_callers_in_two_processes_cause_one_load_of_a_hung_source() {
    for (lock, most) in [(LOCK, 1), (NO_LOCK, 2)] {
        let redis = Redis::start().await.unwrap();
        let (mut one, mut other) = pair(&redis, lock).await;
        one.ask("set 7").await;
        other.ask("set 7").await;
        one.ask("impatient 300 k").await;
        one.ask("begun").await;
        other.ask("impatient 300 k").await;
        for process in [&mut one, &mut other] {
            assert_eq!(process.ask("wait").await, "gone*300");
        }
        // The load goes on without them, and is there for who comes later.
        for process in [&mut one, &mut other] {
            process.ask("open").await;
            process.ask("call 1 k").await;
            assert_eq!(process.ask("wait").await, "7*1");
        }
        let loads = [one.ask("loads").await, other.ask("loads").await];
        let loads = loads.map(|loads| loads.parse::<u64>().unwrap());
        assert!(loads[0] == 1 && loads.iter().sum::<u64>() <= most, "{loads:?}, lock {lock:?}");
    }
}

#[tokio::test]
async fn callers_with_two_error_types_share_one_failed_load_a_process_and_then_a_value() {
    let redis = Redis::start().await.unwrap();
    let (mut one, mut other) = pair(&redis, LOCK).await;
    one.ask("fail 20 k").await;
    one.ask("begun").await;
    other.ask("fail 20 k").await;
    one.ask("open").await;
    other.ask("open").await;
    for process in [&mut one, &mut other] {
        assert_eq!(process.ask("wait").await, "foreign*10 own*10");
        assert_eq!(process.ask("loads").await, "1", "a failure is no value that others can take");
        process.ask("set 7").await;
    }
    for process in [&mut one, &mut other] {
        process.ask("call 20 k").await;
        assert_eq!(process.ask("wait").await, "7*20");
    }
    let loads = [one.ask("loads").await, other.ask("loads").await];
    assert!(["2 1", "1 2"].contains(&loads.join(" ").as_str()), "{loads:?}");
}
