//! `--check`: the documented pre-deployment checklist.

use std::io::Write as _;
use std::time::Duration;

use escala_cluster::{Drain, DrainConfig};
use tokio::net::TcpListener;

use super::app::App;
use super::limits::Allowance;
use super::pool_times::PoolTimes;
use super::settings::{Settings, cpus};
use super::store::Node;
use crate::load::burst_of_reads;

/// The documented server's smallest machine that served 200 users.
const LEAST_CPUS: u32 = 2;
const LEAST_MEMORY_MIB: u64 = 512;
const USERS: usize = 1_100;

/// One line of the checklist.
struct Line {
    what: &'static str,
    outcome: Result<String, String>,
}

/// Goes through the list and prints it; true if every line passes.
pub(super) async fn run(settings: &Settings) -> anyhow::Result<bool> {
    let mut lines = vec![machine_cpus(), memory(), environment(settings)];
    lines.extend(replicas(settings).await);
    lines.push(port(settings).await);
    lines.extend(health_and_load(settings).await);
    let mut out = std::io::stdout().lock();
    for Line { what, outcome } in &lines {
        match outcome {
            Ok(found) => writeln!(out, "pass  {what:<14} {found}")?,
            Err(to_do) => writeln!(out, "FAIL  {what:<14} {to_do}")?,
        }
    }
    let failed = lines.iter().filter(|line| line.outcome.is_err()).count();
    writeln!(out, "{} of {} pass", lines.len() - failed, lines.len())?;
    Ok(failed == 0)
}

fn machine_cpus() -> Line {
    let cpus = cpus();
    let outcome = match cpus >= LEAST_CPUS {
        true => Ok(format!("{cpus}")),
        false => Err(format!("{cpus} found: give the machine or container {LEAST_CPUS} or more")),
    };
    Line { what: "CPUs", outcome }
}

fn memory() -> Line {
    let mib = rustix::system::sysinfo().freeram / 1_048_576;
    // `freeram` leaves out the page cache, which the kernel gives back; `MemAvailable` counts it.
    let available = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(mib, |kib| kib / 1_024);
    let outcome = match available >= LEAST_MEMORY_MIB {
        true => Ok(format!("{available} MiB available")),
        false => Err(format!("{available} MiB available: {LEAST_MEMORY_MIB} are needed")),
    };
    Line { what: "memory", outcome }
}

fn environment(settings: &Settings) -> Line {
    let outcome = match settings.validate() {
        Err(error) => Err(error.to_string()),
        Ok(()) if settings.environment == "production" && settings.metrics_user.is_none() => {
            Err("set METRICS_USER and METRICS_PASSWORD: the dashboard would be open".to_owned())
        }
        Ok(())
            if settings.environment == "production"
                && !settings.tenants.is_empty()
                && settings.rate_limits.trusted_proxies.is_empty() =>
        {
            Err("set TRUSTED_PROXIES: anybody could speak for a tenant".to_owned())
        }
        Ok(()) => Ok(format!("{}, every variable is valid", settings.environment)),
    };
    Line { what: "environment", outcome }
}

async fn replicas(settings: &Settings) -> Vec<Line> {
    let Some(primary) = &settings.database_url else {
        let found = format!("embedded in {}", settings.data_dir.display());
        return vec![Line { what: "database", outcome: Ok(found) }];
    };
    let mut lines = vec![Line { what: "database", outcome: reach("DATABASE_URL", primary).await }];
    for (name, weight, url) in settings.replica_urls() {
        let outcome = reach(name, url).await.map(|found| format!("{found}, weight {weight}"));
        lines.push(Line { what: name, outcome });
    }
    if lines.len() == 1 {
        let to_do = "set DB_READ_REPLICA_1 to DB_READ_REPLICA_3: all reads go to the primary";
        lines.push(Line { what: "replicas", outcome: Err(to_do.to_owned()) });
    }
    lines
}

async fn reach(name: &str, url: &str) -> Result<String, String> {
    let told = |error: &dyn std::error::Error| {
        let causes = std::iter::successors(error.source(), |error| error.source());
        causes.fold(format!("{name}: {error}"), |text, cause| format!("{text}: {cause}"))
    };
    let node = Node::connect(url, 2, &PoolTimes::default()).await.map_err(|error| told(&error))?;
    node.ping().await.map_err(|error| told(&error))?;
    node.close().await;
    Ok("reachable".to_owned())
}

async fn port(settings: &Settings) -> Line {
    let address = (settings.host, settings.port);
    let outcome = match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{}:{} is free", settings.host, settings.port)),
        Err(error) => Err(format!("{}:{}: {error}: set PORT", settings.host, settings.port)),
    };
    Line { what: "port", outcome }
}

/// Starts the server on a free port, asks for its health and reads one quote for each of 1,100
/// users at once. Reads only, and nothing is swept into the lanes: the data may be real.
async fn health_and_load(settings: &Settings) -> Vec<Line> {
    let started = async {
        // All of its users come from one address, which real ones do not.
        let mut settings = settings.clone();
        settings.rate_limits.rate_limit_ip = Allowance::NONE;
        let app = App::inspect(settings).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let drain = Drain::new(DrainConfig::default().lame_duck(Duration::ZERO));
        let serving = tokio::spawn(super::serve_until(app, listener, drain.clone()));
        anyhow::Ok((address, drain, serving))
    };
    let (address, drain, serving) = match started.await {
        Ok(started) => started,
        Err(error) => {
            return vec![Line { what: "health", outcome: Err(format!("cannot start: {error:#}")) }];
        }
    };
    let health = match crate::load::wait_until_ready(address).await {
        Ok(()) => Ok("ready".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    };
    let load = match burst_of_reads(address, USERS).await {
        Ok(answered) if answered == USERS => Ok(format!("{answered} of {USERS} users answered")),
        Ok(answered) => Err(format!("{answered} of {USERS} users answered: run thousand-users")),
        Err(error) => Err(format!("{error:#}")),
    };
    drain.begin();
    let stop = match serving.await {
        Ok(Ok(())) => Ok("clean".to_owned()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(error) => Err(error.to_string()),
    };
    vec![
        Line { what: "health", outcome: health },
        Line { what: "load test", outcome: load },
        Line { what: "stop", outcome: stop },
    ]
}
