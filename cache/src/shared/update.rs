//! Changes to the shared layer: removals, expiries, and the records that put them in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::smallvec;

use super::control::{Control, Marker};
use super::counts::raise;
use super::{ATTEMPTS, Found, Outgoing, Shared, Signal, When};
use crate::change::{Change, Message};
use crate::error::StoreError;
use crate::frame;

/// Moves of the clock that removals by tag share.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    asked: AtomicU64,
    /// Up to which of those who asked the last move counts, and where it led. Held over the move:
    /// the next begins when it has ended.
    last: tokio::sync::Mutex<Option<(u64, Control)>>,
}

/// What a heartbeat finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pulse {
    pub(crate) sequence: u64,
    pub(crate) incarnation: u64,
}

/// Others may move a record at the same time; each try that fails means one of them succeeded.
const RECORD_ATTEMPTS: usize = 32;

impl<V> Shared<V> {
    /// Carries out `change` and tells the other processes, in this order: who hears of it finds
    /// it done.
    ///
    /// # Errors
    /// When a part of it may not have taken effect.
    pub(super) async fn apply(&self, source: u64, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::RemoveKey(text) => self.remove_key(text).await?,
            Change::ExpireKey(text) => self.expire_key(text).await?,
            Change::RemoveTag(tag) => self.mark_tag(*tag, true).await?,
            Change::ExpireTag(tag) => self.mark_tag(*tag, false).await?,
            Change::RemoveMatching(pattern) => {
                self.move_control(Control::swept).await?;
                self.store.remove_matching(&self.names.values(), pattern).await?;
            }
            // Nothing is looked for: what bears an earlier clock is not believed any more.
            Change::Clear => drop(self.move_control(Control::cleared).await?),
        }
        self.tell(Message { source, change: change.clone() }).await
    }

    /// Sends a message to the other processes.
    ///
    /// # Errors
    /// When it was not sent, or nobody knows.
    pub(crate) async fn tell(&self, message: Message) -> Result<(), StoreError> {
        self.store.publish(&self.names.channel(), message.encode()).await?;
        raise(&self.counts.told);
        Ok(())
    }

    /// The number of the last message, and the incarnation of the store: one that has lost
    /// everything counts its messages anew.
    pub(crate) async fn pulse(&self) -> Result<Pulse, StoreError> {
        let sequence = self.store.sequence(&self.names.channel()).await?;
        let found = self.get(&self.names.control()).await?;
        let control = match found.as_deref().and_then(Control::decode) {
            Some(control) => control,
            None => self.begin(found).await?.ok_or(StoreError::Suspended)?,
        };
        Ok(Pulse { sequence, incarnation: control.incarnation })
    }

    /// Subscribes to the messages of this cache in other processes; with `tracking`, also to
    /// what anybody does to its keys.
    pub(crate) fn subscribe(&self, tracking: bool) -> tokio::sync::mpsc::Receiver<Signal> {
        let tracked = tracking.then(|| self.names.values());
        self.store.subscribe(&self.names.channel(), tracked.as_deref())
    }

    /// The text of the cache's key that a key of the store stands for.
    pub(crate) fn text_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.names.values())
    }

    /// Writes the first control record, since there is none or one that cannot be read. `None` if
    /// another process was first and its record has gone again.
    pub(super) async fn begin(
        &self,
        unreadable: Option<Vec<u8>>,
    ) -> Result<Option<Control>, StoreError> {
        let key = self.names.control();
        let first = Control::new(fastrand::u64(..));
        let when = unreadable.map_or(When::Absent, When::StartsWith);
        if self.store.set(&key, first.encode(), None, when).await? {
            return Ok(Some(first));
        }
        let found = self.get(&key).await?;
        Ok(found.as_deref().and_then(Control::decode))
    }

    /// Gives the store another incarnation, so that nothing that stands there is believed; unless
    /// another process has.
    ///
    /// # Errors
    /// When nobody knows whether it has one.
    pub(crate) async fn renew(&self, incarnation: u64) -> Result<(), StoreError> {
        let key = self.names.control();
        let found = self.get(&key).await?;
        let same = |bytes: &Vec<u8>| {
            Control::decode(bytes).is_some_and(|control| control.incarnation == incarnation)
        };
        if let Some(found) = found.filter(same) {
            let next = Control::new(fastrand::u64(..)).encode();
            // Not written, the record has moved: the next beat sees to it again.
            self.store.set(&key, next, None, When::StartsWith(found)).await?;
        }
        Ok(())
    }

    /// A tombstone in the key's place: a load that began before finds it and does not write.
    async fn remove_key(&self, text: &str) -> Result<(), StoreError> {
        let key = self.names.value(text);
        let tombstone = frame::tombstone(&key, fastrand::u64(..));
        self.store.set(&key, tombstone, Some(self.fence), When::Always).await.map(drop)
    }

    /// Writes the value back as no longer fresh, or removes it if nobody may use it then.
    async fn expire_key(&self, text: &str) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let looked = self.read(smallvec![self.names.value(text)]).await?.into_iter().next();
            let Some(looked) = looked else { return Ok(()) };
            let view = looked.view();
            let Some(found) = looked.found else { return Ok(()) };
            let Found { content, meta, fresh_left, stale_left } = found;
            if fresh_left.is_zero() {
                return Ok(());
            }
            let stale = stale_left.saturating_sub(fresh_left);
            if stale.is_zero() {
                break;
            }
            let outgoing = Outgoing {
                content: content.as_ref(),
                created_ms: meta.created_ms,
                load: Duration::from_millis(meta.load_ms.into()),
                fresh: None,
                stale,
                tags: &meta.tags,
                validator: meta.validator.as_deref(),
            };
            match self.fill(text, &view, &outgoing).await {
                super::Filled::Refused => {}
                super::Filled::Stored => return Ok(()),
                super::Filled::Skipped | super::Filled::Failed => break,
            }
        }
        self.remove_key(text).await
    }

    async fn mark_tag(&self, tag: u64, removal: bool) -> Result<(), StoreError> {
        let control = self.tick().await?;
        let key = self.names.tag(tag);
        let life = Some(self.memory_of_tags);
        self.update(&key, life, |found| {
            let marker = found.map(|found| Marker::decode(found, control)).unwrap_or_default();
            marker.moved(control, removal).encode()
        })
        .await
        .map(drop)
    }

    /// Moves the clock once for all removals of this process that ask meanwhile: one that began
    /// after they asked puts them all after every load that began before.
    async fn tick(&self) -> Result<Control, StoreError> {
        let mine = self.ticks.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut last = self.ticks.last.lock().await;
        if let Some((covers, control)) = *last
            && covers >= mine
        {
            return Ok(control);
        }
        let covers = self.ticks.asked.load(Ordering::Acquire);
        let control = self.move_control(Control::ticked).await?;
        *last = Some((covers, control));
        Ok(control)
    }

    async fn move_control(&self, to: fn(Control) -> Control) -> Result<Control, StoreError> {
        let first = fastrand::u64(..);
        let next = |found: Option<&[u8]>| {
            to(found.and_then(Control::decode).unwrap_or(Control::new(first))).encode()
        };
        let written = self.update(&self.names.control(), None, next).await?;
        Control::decode(&written).ok_or(StoreError::Suspended)
    }

    /// Replaces a record by what `next` makes of it, as one step.
    async fn update(
        &self,
        key: &str,
        ttl: Option<Duration>,
        next: impl Fn(Option<&[u8]>) -> Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        for attempt in 0..RECORD_ATTEMPTS {
            let found = self.get(key).await?;
            let record = next(found.as_deref());
            let when = found.map_or(When::Absent, When::StartsWith);
            if self.store.set(key, record.clone(), ttl, when).await? {
                return Ok(record);
            }
            // Many processes that move one record at once must not keep step.
            let pause = fastrand::u64(0..=attempt as u64 * 200);
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        Err(StoreError::failed("a record was changed by others again and again"))
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.store.get_many(&[key.to_owned()]).await?;
        Ok(found.into_iter().next().flatten())
    }
}
