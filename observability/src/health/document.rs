//! The `application/health+json` answer (draft-inadarei-api-health-check-06).

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::runner::View;
use super::state::CheckStatus;
use crate::clock;
use crate::score::{Score, Status};

/// The draft's media type.
pub(crate) const MEDIA_TYPE: &str = "application/health+json";

/// Which question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// May it get traffic?
    Ready,
    /// Has it finished starting?
    Startup,
    /// How is the whole?
    Health,
}

/// What the answer is made of.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    pub(crate) service: &'a str,
    pub(crate) version: &'a str,
    pub(crate) uptime: Duration,
    pub(crate) checks: &'a [View],
    pub(crate) score: &'a Score,
    pub(crate) gates_open: bool,
}

impl Document<'_> {
    pub(crate) fn status(&self, group: Group) -> Status {
        let pass_if = |good: bool| if good { Status::Pass } else { Status::Fail };
        match group {
            Group::Startup => pass_if(self.started()),
            Group::Ready => pass_if(self.gates_open && self.started() && !self.critical_failure()),
            Group::Health => self.score.status,
        }
    }

    /// Every critical check has had a result.
    fn started(&self) -> bool {
        self.checks.iter().all(|check| check.known || !check.critical)
    }

    fn critical_failure(&self) -> bool {
        self.checks.iter().any(|check| check.critical && check.status == CheckStatus::Fail)
    }

    /// Nothing but the status: what a stranger may know.
    pub(crate) fn brief(&self, group: Group) -> Value {
        json!({ "status": self.status(group).name() })
    }

    pub(crate) fn detailed(&self, group: Group) -> Value {
        let mut root = Map::new();
        let status = self.status(group);
        root.insert("status".into(), json!(status.name()));
        root.insert("releaseId".into(), json!(self.version));
        root.insert("serviceId".into(), json!(self.service));
        // The draft wants no output where all is well.
        if status != Status::Pass {
            root.insert("output".into(), json!(self.output(group)));
        }
        root.insert("checks".into(), self.checks_json(group));
        if group == Group::Health {
            let limiting = self.score.limiting.as_ref().map(|l| format!("limited by {}", l.reason));
            let score = format!("score {:.1} of 100", self.score.value);
            let notes: Vec<String> = [Some(score), limiting].into_iter().flatten().collect();
            root.insert("notes".into(), json!(notes));
        }
        Value::Object(root)
    }

    fn output(&self, group: Group) -> String {
        match group {
            Group::Ready if !self.gates_open => "a readiness gate is closed".to_owned(),
            Group::Health => {
                self.score.limiting.as_ref().map_or_else(String::new, |l| l.reason.clone())
            }
            Group::Startup | Group::Ready => self
                .checks
                .iter()
                .find(|c| c.critical && (!c.known || c.status == CheckStatus::Fail))
                .map_or_else(String::new, |c| format!("check {}: {}", c.name, c.why)),
        }
    }

    fn checks_json(&self, group: Group) -> Value {
        let mut checks = Map::new();
        for view in self.checks.iter().filter(|c| group == Group::Health || c.critical) {
            let status = match view.status {
                CheckStatus::Pass => "pass",
                CheckStatus::Fail => "fail",
                CheckStatus::Warn | CheckStatus::Unknown => "warn",
            };
            let mut entry = json!({
                "componentId": &*view.name,
                "componentType": "component",
                "status": status,
            });
            if let Some(took) = view.took {
                entry["observedValue"] = json!(millis(took));
                entry["observedUnit"] = json!("ms");
            }
            if let Some(at) = view.at {
                entry["time"] = json!(clock::rfc3339(at));
            }
            if view.status != CheckStatus::Pass {
                entry["output"] = json!(view.why);
            }
            checks.insert(format!("{}:responseTime", view.name), json!([entry]));
        }
        if group == Group::Health {
            let uptime = json!([{
                "componentType": "system",
                "observedValue": self.uptime.as_secs(),
                "observedUnit": "s",
                "status": "pass",
                "time": clock::rfc3339(SystemTime::now()),
            }]);
            checks.insert("uptime".into(), uptime);
        }
        Value::Object(checks)
    }
}

/// Milliseconds to a thousandth.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
