//! Many flights that share one look at the shared layer and one load.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;

use super::{Digested, Duty, Landed, source};
use crate::cache::Core;
use crate::entry::Entry;
use crate::fetch::Seen;
use crate::flight::Lead;
use crate::key::CacheKey;

/// A flight to be flown, and what its caller knows already.
pub(crate) struct Leading<K, V>
where
    K: Hash + Eq,
{
    pub(crate) lead: Lead<K, Landed<V>>,
    pub(crate) seen: Seen,
    /// Whether memory takes in what the shared layer has.
    pub(crate) admitted: bool,
}

/// Flies many flights at once: the keys that the shared layer does not have are loaded together.
///
/// A key that the load does not bring is absent at the source. What has just been seen under a key
/// need not be looked for again.
pub(crate) async fn fly_many<K, V, T, E, F, Fut>(
    core: Arc<Core<K, V>>,
    leads: Vec<Leading<K, V>>,
    load: F,
) where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    T: Into<Entry<V>>,
    E: Send + Sync + 'static,
    F: FnOnce(Vec<K>) -> Fut,
    Fut: Future<Output = Result<HashMap<K, T>, E>>,
{
    let duty = |Leading { lead, seen, admitted }| Duty {
        admitted,
        ..Duty::new(&core, lead, false).having_seen(seen)
    };
    let duties: Vec<_> = leads.into_iter().map(duty).collect();
    let mut duties = consult(&core, duties).await;
    if duties.is_empty() {
        return;
    }
    duties.iter_mut().for_each(Duty::begin);
    let keys = duties.iter().map(|duty| duty.lead.ticket.key().clone()).collect();
    match source::load(&core, keys, load).await {
        Ok(mut loaded) => {
            let mut writes = Vec::with_capacity(duties.len());
            for duty in duties {
                let entry =
                    loaded.remove(duty.lead.ticket.key()).map_or_else(Entry::absent, Into::into);
                writes.push(duty.accept(entry));
            }
            all(writes).await;
        }
        Err(failure) => duties.into_iter().for_each(|duty| duty.fail(failure.clone())),
    }
}

/// Lands the flights whose values the shared layer has; returns the others.
async fn consult<'a, K, V>(
    core: &Arc<Core<K, V>>,
    duties: Vec<Duty<'a, K, V>>,
) -> Vec<Duty<'a, K, V>>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let Some(shared) = &core.shared else { return duties };
    let (asking, mut loading): (Vec<_>, Vec<_>) =
        duties.into_iter().partition(|duty| duty.trusts_shared && !duty.consulted);
    if asking.is_empty() {
        return loading;
    }
    let keys = asking.iter().map(|duty| duty.lead.ticket.key());
    let answers = match shared.look_keys(keys).await {
        Ok(looked) => looked.into_iter().map(Ok).collect(),
        Err(error) => vec![(); asking.len()].into_iter().map(|()| Err(error.clone())).collect(),
    };
    let answers: Vec<_> = answers;
    for (duty, answer) in asking.into_iter().zip(answers) {
        if let Digested::Load(duty) = duty.digest(answer) {
            loading.push(duty);
        }
    }
    loading
}

/// Drives all of them at once, so that their writes share round trips.
async fn all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Keys that occur more than once are flown once.
pub(crate) fn distinct<K: Hash + Eq + Clone>(keys: &[K]) -> Vec<K> {
    let mut seen = HashSet::with_capacity_and_hasher(keys.len(), RandomState::default());
    keys.iter().filter(|key| seen.insert(*key)).cloned().collect()
}
