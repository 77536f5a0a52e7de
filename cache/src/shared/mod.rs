//! The layer that processes share: any store of bytes, behind frames that are checked.

#[cfg(feature = "redis")]
mod breaker;
pub(crate) mod control;
mod counts;
mod lookups;
mod pending;
mod recovery;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod store;
mod update;
mod view;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::{SmallVec, smallvec};

use crate::codec::Codec;
use crate::config::CacheConfig;
use crate::error::StoreError;
use crate::frame::{self, Fingerprint, Format, Meta, Opened, Stored};
use crate::key::{self, CacheKey};
use control::{Control, Marker, Trust};
use counts::{Counts, raise};
use lookups::{Answer, Keys, Lookups, Record, Standing};
use recovery::Recovery;
pub use store::{SharedStore, Signal, StoreFuture, When};
pub(crate) use update::Pulse;
use update::Ticks;
pub(crate) use view::View;

/// The shared layer of one cache.
pub(crate) struct Shared<V> {
    store: Arc<dyn SharedStore>,
    lookups: Lookups,
    format: Format<V>,
    names: Names,
    /// How long a removed key keeps loads that began before from being written: longer than a
    /// load may take.
    fence: Duration,
    /// How long a tag's removal must be remembered: as long as what it concerns may stand there.
    memory_of_tags: Duration,
    recovery: Recovery,
    ticks: Ticks,
    counts: Counts,
    #[cfg(feature = "tracing")]
    events: crate::events::FaultEvents,
}

/// The keys of one cache in the store: frame version and name of the cache, escaped, then a
/// letter for the kind. No two caches, kinds or keys share a name.
struct Names {
    prefix: String,
}

/// What a look found.
pub(crate) struct Looked<V> {
    pub(crate) found: Option<Found<V>>,
    control: Control,
    bytes: Option<Vec<u8>>,
}

impl<V> Looked<V> {
    /// What a load must know to write over this.
    pub(crate) fn view(&self) -> View {
        let Self { control, bytes, .. } = self;
        View { control: *control, expected: bytes.as_deref().map(Fingerprint::of) }
    }
}

/// What a look for several values found, in their order.
type Looks<V> = SmallVec<[Looked<V>; 1]>;

/// A value in the shared layer that may be served, or stand in.
pub(crate) struct Found<V> {
    /// `None`: the source says that there is nothing.
    pub(crate) content: Option<V>,
    pub(crate) meta: Meta,
    /// Zero if it may only stand in.
    pub(crate) fresh_left: Duration,
    pub(crate) stale_left: Duration,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    Stored,
    /// Not a value for the shared layer: too long, too short-lived, not encodable.
    Skipped,
    /// Another process wrote or removed the key meanwhile.
    Refused,
    Failed,
}

/// A value on its way into the shared layer.
pub(crate) struct Outgoing<'a, V> {
    pub(crate) content: Option<&'a V>,
    pub(crate) created_ms: u64,
    pub(crate) load: Duration,
    /// `None` if it may only stand in.
    pub(crate) fresh: Option<Duration>,
    pub(crate) stale: Duration,
    pub(crate) tags: &'a [u64],
    pub(crate) validator: Option<&'a str>,
}

impl<V> Shared<V> {
    pub(crate) fn new(store: Arc<dyn SharedStore>, codec: Codec<V>, config: &CacheConfig) -> Self {
        let names = Names::new(&config.name);
        let codec = codec.encoding(config.encoding);
        let fresh = config.ttl.max(config.absent_ttl).min(config.shared_ttl);
        let longest = fresh.saturating_add(config.stale).max(MIN_MEMORY_OF_TAGS);
        Self {
            lookups: Lookups::new(Arc::clone(&store), names.control()),
            store,
            format: Format::new(
                codec,
                config.schema_version,
                config.compression,
                config.max_value_bytes,
            ),
            names,
            fence: config.load_timeout.saturating_add(SLACK),
            memory_of_tags: longest.saturating_add(config.load_timeout),
            recovery: Recovery::default(),
            ticks: Ticks::default(),
            counts: Counts::default(),
            #[cfg(feature = "tracing")]
            events: crate::events::FaultEvents::new(&config.name),
        }
    }

    /// Looks for the value under `text`.
    ///
    /// # Errors
    /// When the store cannot tell, or is not to be believed for the moment.
    pub(crate) async fn look(&self, text: &str) -> Result<Looked<V>, StoreError> {
        self.look_one(self.names.value(text)).await
    }

    /// As [`look`](Self::look), without the key's text in a string of its own.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(crate) async fn look_key(
        &self,
        key: &(impl CacheKey + ?Sized),
    ) -> Result<Looked<V>, StoreError> {
        self.look_one(self.names.value_of(key)).await
    }

    async fn look_one(&self, key: String) -> Result<Looked<V>, StoreError> {
        let looked = self.look_at(smallvec![key]).await?;
        looked.into_iter().next().ok_or(StoreError::Suspended)
    }

    /// Looks for many values in one round trip, in the order of their keys.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(crate) async fn look_keys<'a, K: CacheKey + 'a>(
        &self,
        keys: impl Iterator<Item = &'a K>,
    ) -> Result<Looks<V>, StoreError> {
        self.look_at(keys.map(|key| self.names.value_of(key)).collect()).await
    }

    async fn look_at(&self, keys: Keys) -> Result<Looks<V>, StoreError> {
        let asked = keys.len();
        if !self.is_trusted() {
            self.counts.distrusted.add(asked);
            self.counts.misses.add(asked);
            return Err(StoreError::Suspended);
        }
        let looked = self.read(keys).await;
        match &looked {
            Ok(looked) => {
                let hits = looked.iter().filter(|one| one.found.is_some()).count();
                self.counts.hits.add(hits);
                self.counts.misses.add(asked - hits);
            }
            Err(error) => {
                self.note(error);
                self.counts.misses.add(asked);
            }
        }
        looked
    }

    /// Writes a value, unless what `view` saw under the key is no longer there.
    ///
    /// # Cost
    /// One round trip over something, three over nothing; nobody but a removal of the key waits
    /// for them.
    pub(crate) async fn fill(&self, text: &str, view: &View, outgoing: &Outgoing<'_, V>) -> Filled {
        let key = self.names.value(text);
        let Some((bytes, ttl)) = self.seal(&key, view.control, outgoing) else {
            return Filled::Skipped;
        };
        match self.write(&key, view, bytes, ttl).await {
            Ok(true) => {
                raise(&self.counts.writes);
                Filled::Stored
            }
            Ok(false) => {
                raise(&self.counts.refused);
                Filled::Refused
            }
            Err(error) => {
                self.note(&error);
                Filled::Failed
            }
        }
    }

    /// Writes a value over whatever stands there.
    pub(crate) async fn replace(&self, text: &str, outgoing: &Outgoing<'_, V>) -> Filled {
        let key = self.names.value(text);
        for _ in 0..ATTEMPTS {
            let Ok(looked) = self.read(smallvec![key.clone()]).await else {
                return Filled::Failed;
            };
            let Some(looked) = looked.into_iter().next() else {
                return Filled::Failed;
            };
            // Read first and compared, rather than written blindly: a write that is delivered
            // late, by a connection that was thought dead, must not undo what came after it.
            match self.fill(text, &looked.view(), outgoing).await {
                Filled::Refused => {}
                filled => return filled,
            }
        }
        Filled::Failed
    }

    /// Takes the right to load `text` for `time`; false if another process has it.
    pub(crate) async fn lock(&self, text: &str, token: u64, time: Duration) -> bool {
        let token = token.to_le_bytes().to_vec();
        let taken = self.store.set(&self.names.lock(text), token, Some(time), When::Absent).await;
        // A store that is away locks nobody out.
        taken.unwrap_or(true)
    }

    pub(crate) async fn unlock(&self, text: &str, token: u64) {
        let mine = When::StartsWith(token.to_le_bytes().to_vec());
        let soon = Some(Duration::from_millis(1));
        // If this fails, the lock ends with its time.
        self.store.set(&self.names.lock(text), Vec::new(), soon, mine).await.ok();
    }

    /// The bytes of a value and how long they are to stand there.
    fn seal(
        &self,
        key: &str,
        control: Control,
        outgoing: &Outgoing<'_, V>,
    ) -> Option<(Vec<u8>, Duration)> {
        let mut fresh = outgoing.fresh;
        if !outgoing.tags.is_empty() {
            // Not longer than the removal of one of its tags is remembered.
            fresh = fresh.map(|fresh| fresh.min(self.memory_of_tags / 2));
        }
        // Redis refuses a lifetime of zero; a shorter life is over before it could be read.
        if fresh.is_some_and(|fresh| fresh < Duration::from_millis(1)) {
            return None;
        }
        let ttl = fresh.unwrap_or_default().saturating_add(outgoing.stale);
        let now = wall_ms();
        let meta = Meta {
            incarnation: control.incarnation,
            clock: control.clock,
            created_ms: outgoing.created_ms,
            // Over by everybody's clock, if it is.
            fresh_until_ms: fresh.map_or(0, |fresh| now.saturating_add(millis(fresh))),
            stale_until_ms: now.saturating_add(millis(ttl)),
            load_ms: u32::try_from(outgoing.load.as_millis()).unwrap_or(u32::MAX),
            tags: outgoing.tags.to_vec(),
            validator: outgoing.validator.map(Into::into),
        };
        let bytes = self.format.seal(key, &meta, outgoing.content);
        if bytes.is_none() {
            raise(&self.counts.oversized);
        }
        bytes.map(|bytes| (bytes, ttl))
    }

    /// Writes in the place of what was seen. Where nothing was, in three steps: a tombstone, a look
    /// whether a pattern was removed since, the value in the place of the tombstone.
    ///
    /// A removal by pattern moves the control record and then takes away what it finds. What was
    /// seen is found, and without it nothing is written. Where nothing was, one that moved the
    /// record before the look keeps the value out; a later one finds the tombstone, or the value.
    /// With the value written first and looked after, others could read it in between and keep it.
    async fn write(
        &self,
        key: &str,
        view: &View,
        bytes: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        if let Some(seen) = &view.expected {
            let seen = When::StartsWith(seen.bytes().to_vec());
            return self.store.set(key, bytes, Some(ttl), seen).await;
        }
        let claim = frame::tombstone(key, fastrand::u64(..));
        if !self.store.set(key, claim.clone(), Some(self.fence), When::Absent).await? {
            return Ok(false);
        }
        let now = self.lookups.get(Keys::new()).await?.record.control();
        if now.is_none_or(|now| !now.admits(view.control)) {
            return Ok(false);
        }
        self.store.set(key, bytes, Some(ttl), When::StartsWith(claim)).await
    }

    /// Reads until the store is not emptied meanwhile: that is an answer (there is nothing), and
    /// must not pass for a store that cannot be asked.
    async fn read(&self, mut keys: Keys) -> Result<Looks<V>, StoreError> {
        for _ in 0..ATTEMPTS {
            match self.try_read(keys).await? {
                Ok(looked) => return Ok(looked),
                Err(again) => keys = again,
            }
        }
        Err(StoreError::failed("the shared store was emptied again and again"))
    }

    /// Gives the keys back if the store was emptied meanwhile.
    async fn try_read(&self, keys: Keys) -> Result<Result<Looks<V>, Keys>, StoreError> {
        let Answer { record, found } = self.lookups.get(keys).await?;
        let control = match record {
            Record::Readable(control) => control,
            Record::Unreadable(bytes) => {
                match self.begin(bytes.as_deref().map(<[u8]>::to_vec)).await? {
                    Some(control) => control,
                    None => return Ok(Err(keys_of(found))),
                }
            }
        };
        let open = |(key, bytes): &Standing| {
            bytes.as_deref().and_then(|bytes| self.open(key, bytes, control))
        };
        let opened: SmallVec<[_; 1]> = found.iter().map(open).collect();
        let Some(markers) = self.markers(control, &opened).await? else {
            return Ok(Err(keys_of(found)));
        };
        let judge = |(opened, (_, bytes)): (Option<Opened<V>>, Standing)| Looked {
            found: opened.and_then(|opened| Self::judge(opened, &markers)),
            control,
            bytes,
        };
        Ok(Ok(opened.into_iter().zip(found).map(judge).collect()))
    }

    /// What was done to the tags of these frames, as far as it may concern one of them; `None` if
    /// that may have gone with everything else since the frames were read.
    async fn markers(
        &self,
        control: Control,
        opened: &[Option<Opened<V>>],
    ) -> Result<Option<Vec<(u64, Marker)>>, StoreError> {
        let frames = opened.iter().flatten();
        let concerned = frames.filter(|frame| control.moved_since(&frame.meta));
        let mut tags: Vec<u64> = concerned.flat_map(|frame| &frame.meta.tags).copied().collect();
        tags.sort_unstable();
        tags.dedup();
        if tags.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let keys = tags.iter().map(|tag| self.names.tag(*tag)).collect();
        let Answer { record, found } = self.lookups.get(keys).await?;
        if record.control().is_none_or(|now| now.incarnation != control.incarnation) {
            return Ok(None);
        }
        let decode = |bytes: Option<Vec<u8>>| Some(Marker::decode(&bytes?, control));
        let markers = tags.into_iter().zip(found.into_iter().map(|(_, bytes)| bytes));
        Ok(Some(markers.filter_map(|(tag, bytes)| Some((tag, decode(bytes)?))).collect()))
    }

    fn open(&self, key: &str, bytes: &[u8], control: Control) -> Option<Opened<V>> {
        let Ok(opened) = self.format.open(key, bytes) else {
            raise(&self.counts.rejected);
            return None;
        };
        let kept = !matches!(opened.content, Stored::Removed)
            && control.trust(&opened.meta) == Trust::Current;
        kept.then_some(opened)
    }

    fn judge(opened: Opened<V>, markers: &[(u64, Marker)]) -> Option<Found<V>> {
        let Opened { meta, content } = opened;
        let marked = |tag: &u64| {
            let at = markers.binary_search_by_key(tag, |(tag, _)| *tag).ok()?;
            Some(markers[at].1.trust(&meta))
        };
        let trust = meta.tags.iter().filter_map(marked).max().unwrap_or(Trust::Current);
        let now = wall_ms();
        let left = |until: u64| Duration::from_millis(until.saturating_sub(now));
        let fresh = if trust == Trust::Current { meta.fresh_until_ms } else { 0 };
        let fresh_left = left(fresh);
        let stale_left = left(meta.stale_until_ms);
        if trust == Trust::Removed || stale_left.is_zero() {
            return None;
        }
        let content = match content {
            Stored::Value(value) => Some(value),
            Stored::Absent => None,
            Stored::Removed => return None,
        };
        Some(Found { content, meta, fresh_left, stale_left })
    }

    fn note(&self, error: &StoreError) {
        if matches!(error, StoreError::Suspended) {
            raise(&self.counts.suspended);
            return;
        }
        raise(&self.counts.faults);
        #[cfg(feature = "tracing")]
        self.events.fault(error);
    }
}

impl Names {
    fn new(cache: &str) -> Self {
        let mut prefix = format!("{}:", frame::VERSION);
        key::push_escaped(cache, &mut prefix);
        prefix.push(':');
        Self { prefix }
    }

    fn value(&self, text: &str) -> String {
        [&self.prefix, VALUE, text].concat()
    }

    fn value_of(&self, key: &(impl CacheKey + ?Sized)) -> String {
        let mut out = String::with_capacity(self.prefix.len() + VALUE.len() + USUAL_TEXT);
        out.push_str(&self.prefix);
        out.push_str(VALUE);
        key.write_text(&mut out);
        out
    }

    fn values(&self) -> String {
        self.value("")
    }

    fn lock(&self, text: &str) -> String {
        [&self.prefix, "l:", text].concat()
    }

    fn tag(&self, tag: u64) -> String {
        format!("{}t:{tag:016x}", self.prefix)
    }

    fn control(&self) -> String {
        [&self.prefix, "c"].concat()
    }

    fn channel(&self) -> String {
        [&self.prefix, "m"].concat()
    }
}

/// Milliseconds since 1970 by this machine's clock, the only one that processes share.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn keys_of(found: SmallVec<[Standing; 1]>) -> Keys {
    found.into_iter().map(|(key, _)| key).collect()
}

/// Stands in the name of each value.
const VALUE: &str = "k:";

/// Bytes that the text of a key mostly fits into.
const USUAL_TEXT: usize = 32;

/// More than any operation on a store may take.
const SLACK: Duration = Duration::from_secs(5);

/// Entries may be given longer lives than the settings say, one by one.
const MIN_MEMORY_OF_TAGS: Duration = Duration::from_secs(24 * 3_600);

/// How often a write is tried that others keep coming before.
const ATTEMPTS: usize = 3;
